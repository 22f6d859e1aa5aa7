// The recordings of this browser: what is being transcribed, and what has been.

import { transcribe } from "./server.js";
import * as store from "./store.js";

const MOST_AT_ONCE = 3; // requests; others wait here
const LEFT = "The page was closed before the text was complete.";
const UPLOAD = /^the upload: /; // the server does not use names of files; here, the name stands beside it
const NO_ROOM = "This browser has no room to keep the recording. Its text is kept.";

/**
 * An entry: {id, name, created, fields, state, error, transcript, corrections}. Its state is "waiting",
 * "uploading", "transcribing", "done" or "failed". While the page is open, also {blob, share, began, heard, abort}.
 */
export class Recordings {
  #entries = [];
  #unkept = 0;

  /** `changed(entry, segment)` is called after each change, with the segment that it brought, if any. */
  constructor(changed) {
    this.changed = changed;
  }

  /** Read what this browser has kept. */
  async read() {
    this.#entries = await store.entries().catch(() => []);
    for (const entry of this.#entries) {
      if (!["done", "failed"].includes(entry.state)) Object.assign(entry, { state: "failed", error: LEFT });
    }
    return this.#entries;
  }

  get all() {
    return this.#entries;
  }

  /** Whether something would be lost if the page were closed. */
  get busy() {
    return this.#entries.some((entry) => !["done", "failed"].includes(entry.state));
  }

  /** Add a recording, and transcribe it. */
  async add(blob, name, fields) {
    const entry = {
      name,
      created: Date.now(),
      fields,
      state: "waiting",
      error: "",
      transcript: null,
      corrections: {},
    };
    // Without storage, it stays for as long as the page is open.
    entry.id = await store.keep(entry).catch(() => `open ${++this.#unkept}`);
    entry.blob = blob;
    this.#entries.unshift(entry);
    this.changed(entry);
    store.keepAudio(entry.id, blob).then((kept) => this.#note(entry, kept));
    this.#next();
    return entry;
  }

  #note(entry, kept) {
    if (kept) return;
    entry.note = NO_ROOM;
    this.changed(entry);
  }

  /** Return the recording of an entry, if there is one. */
  async audioOf(entry) {
    entry.blob ??= await store.audioOf(entry.id).catch(() => undefined);
    return entry.blob;
  }

  /** Give an entry its recording again. */
  async attach(entry, blob) {
    entry.blob = blob;
    this.#note(entry, await store.keepAudio(entry.id, blob));
  }

  /** Transcribe again what failed. */
  async again(entry, fields) {
    if (!(await this.audioOf(entry))) return false;
    this.#update(entry, { state: "waiting", error: "", fields, transcript: null, corrections: {} });
    this.#next();
    return true;
  }

  /** Keep the corrections of an entry. */
  correct(entry, corrections) {
    return this.#update(entry, { corrections: { ...corrections } });
  }

  /** Stop what an entry is doing, and forget it. */
  async remove(entry) {
    this.#entries = this.#entries.filter((other) => other !== entry);
    entry.abort?.abort();
    await store.forget(entry.id).catch(() => {});
    this.#next();
  }

  async #update(entry, change) {
    Object.assign(entry, change);
    this.changed(entry);
    const { id, name, created, fields, state, error, transcript, corrections } = entry;
    if (this.#entries.includes(entry)) {
      await store.keep({ id, name, created, fields, state, error, transcript, corrections }).catch(() => {});
    }
  }

  #next() {
    const running = this.#entries.filter(({ state }) => state === "uploading" || state === "transcribing");
    const waiting = this.#entries.filter(({ state }) => state === "waiting").reverse();
    for (const entry of waiting.slice(0, Math.max(0, MOST_AT_ONCE - running.length))) this.#transcribe(entry);
  }

  async #transcribe(entry) {
    Object.assign(entry, { state: "uploading", share: 0, heard: [], abort: new AbortController() });
    this.changed(entry);
    const hear = ({ uploaded, segment }) => {
      if (uploaded !== undefined)
        Object.assign(entry, {
          share: uploaded,
          state: uploaded < 1 ? "uploading" : "transcribing",
          began: Date.now(), // the last time, transcribing
        });
      if (segment) entry.heard.push(segment);
      this.changed(entry, segment);
    };
    try {
      const transcript = await transcribe(entry.blob, entry.fields, hear, entry.abort.signal);
      await this.#update(entry, { state: "done", transcript: { ...transcript, source: entry.name } });
    } catch (error) {
      const change = { state: "failed", error: error.message.replace(UPLOAD, "") };
      if (this.#entries.includes(entry)) await this.#update(entry, change);
    }
    this.#next();
  }
}
