// The page: connects the list of recordings, the reader, the player and the microphone.

import { clock, length } from "./clock.js";
import { fields, nameOf, offer } from "./options.js";
import { Player } from "./player.js";
import { element, Reader } from "./reader.js";
import { onRecorded, records } from "./microphone.js";
import { Recordings } from "./recordings.js";
import { models, written } from "./server.js";
import { keepSetting, setting } from "./store.js";
import { wordsIn } from "./corrections.js";
import "./key.js";
import "./scheme.js";

const byId = (id) => document.getElementById(id);
const TYPES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };
const SAY_MS = 7000; // for which a message stays
const LOCAL = ["localhost", "127.0.0.1", "[::1]"];

const recordings = new Recordings(changed);
const reader = new Reader(
  (time_s) => player.go(time_s),
  (corrections) => recordings.correct(open, corrections),
);
const player = new Player(reader);
let open = null; // the entry that is shown
let shown = 0; // segments of an unfinished entry that are shown
let batch = []; // what was added last, until the user opens something: if the open one fails, the next is shown

let saying = 0;
/** Say something to all; if it can be seen anyway, only to those who do not see. */
function say(text, seen = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("unseen", seen);
  clearTimeout(saying);
  saying = setTimeout(() => (byId("status").textContent = ""), SAY_MS);
}

// The list

const rows = new Map(); // by entry

function rowOf(entry) {
  if (rows.has(entry)) return rows.get(entry);
  const name = element("span", { className: "name", text: entry.name });
  const state = element("span", { className: "state" });
  const progress = element("progress", { max: 1, ariaLabel: `Progress of ${entry.name}` });
  const button = element("button", { type: "button", className: "open" }, name, state, progress);
  const remove = element("button", {
    type: "button",
    className: "remove quiet",
    text: "×",
    ariaLabel: `Remove ${entry.name}`,
  });
  const again = element("button", { type: "button", className: "again-button", text: "Try again" });
  const node = element("li", { className: "entry" }, button, remove, again);
  button.addEventListener("click", () => {
    batch = [];
    show(entry);
  });
  remove.addEventListener("click", () => forget(entry));
  again.addEventListener("click", () => retry(entry));
  const row = { node, state, progress, button, again };
  rows.set(entry, row);
  return row;
}

/** The end of the text so far, as a share of the recording; undefined if its length is unknown. */
function shareOf(entry) {
  if (entry.state === "uploading") return entry.share;
  const whole_s = entry === open ? byId("audio").duration : NaN;
  const end_s = entry.heard?.at(-1)?.end ?? 0;
  return end_s && Number.isFinite(whole_s) && whole_s ? Math.min(1, end_s / whole_s) : undefined;
}

function stateOf(entry) {
  const end_s = entry.heard?.at(-1)?.end;
  const lasts = clock((Date.now() - entry.began) / 1000);
  const states = {
    waiting: "Waiting",
    uploading: `Uploading, ${Math.round(100 * (entry.share ?? 0))} %`,
    transcribing: `Transcribing for ${lasts}` + (end_s ? `, ${clock(end_s)} of the recording so far` : ""),
    done:
      entry.transcript &&
      [
        length(entry.transcript.duration_s),
        new Date(entry.created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }),
        ...(entry.transcript.complete ? [] : ["not complete"]),
      ].join(" · "),
    failed: entry.error,
  };
  return states[entry.state] + (entry.note ? ` · ${entry.note}` : "");
}

function draw(entry) {
  const { node, state, progress, button, again } = rowOf(entry);
  const busy = !["done", "failed"].includes(entry.state);
  node.dataset.state = entry.state;
  node.classList.toggle("incomplete", entry.transcript?.complete === false);
  state.textContent = stateOf(entry);
  again.hidden = entry.state !== "failed";
  progress.hidden = !busy;
  if (busy) showShare(progress, entry);
  button.setAttribute("aria-current", String(entry === open));
}

/** Show the share in a bar, or that something is being done. */
function showShare(bar, entry) {
  const share = entry.state === "waiting" ? undefined : shareOf(entry);
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

setInterval(() => {
  for (const entry of recordings.all.filter(({ state }) => state === "transcribing")) {
    draw(entry);
    if (entry === open) showProgress();
  }
}, 1000);

const failureOf = (entry) => `${entry.name} could not be transcribed: ${entry.error}`;

/** Follow a change of an entry. */
function changed(entry, segment) {
  if (!recordings.all.includes(entry)) return;
  if (!rows.has(entry)) byId("list").prepend(rowOf(entry).node);
  const was = rowOf(entry).node.dataset.state;
  draw(entry);
  if (was !== entry.state && entry.state === "done") say(`${entry.name} is transcribed.`, entry === open);
  if (was !== entry.state && entry.state === "failed") {
    const next = entry === open && batch.find(({ state }) => state !== "failed");
    if (next) show(next);
    say(failureOf(entry), entry === open);
  }
  if (entry !== open) return;
  if (was !== entry.state || !segment) return showText();
  for (; shown < entry.heard.length; shown++) reader.append(entry.heard[shown]);
  showProgress();
}

async function retry(entry) {
  if (!(await recordings.again(entry, fields()))) say("The recording is not here any more. Choose it again.");
}

async function forget(entry) {
  const busy = entry.state !== "done" && entry.state !== "failed";
  const what = busy
    ? "Stop transcribing"
    : Object.keys(entry.corrections).length
      ? "Remove the text with its corrections of"
      : "Remove";
  if (!confirm(`${what} ${entry.name}?`)) return;
  const removed = recordings.remove(entry);
  rowOf(entry).node.remove();
  rows.delete(entry);
  if (entry === open) close();
  await removed;
}

// The reader

let shownState = ""; // of the reader: the entry and its state

async function show(entry) {
  const before = open;
  open = entry;
  if (before && recordings.all.includes(before)) draw(before);
  draw(entry);
  document.body.classList.add("reading");
  byId("welcome").hidden = true;
  byId("reader").hidden = false;
  byId("title").textContent = entry.name;
  document.title = entry.name;
  shownState = "";
  player.unload();
  showText();
  byId("main").focus({ preventScroll: true }); // so that the player's keys work at once
  scrollTo(0, 0);
  const blob = await recordings.audioOf(entry);
  if (open !== entry) return;
  player.load(blob);
  if (entry.transcript) player.show(entry.transcript);
}

function close() {
  const before = open;
  open = null;
  if (recordings.all.includes(before)) draw(before);
  player.unload();
  document.body.classList.remove("reading");
  document.title = "Transcripts";
  byId("welcome").hidden = false;
  byId("reader").hidden = true;
}

/** Show the text of the open entry, unless it is shown already. */
function showText() {
  const { transcript, corrections, heard = [], state, id } = open;
  byId("tools").hidden = !transcript;
  showFacts();
  showProgress();
  hideUnplayable();
  if (`${id} ${state}` === shownState) return;
  shownState = `${id} ${state}`;
  reader.show(transcript, corrections);
  shown = 0;
  if (transcript) return player.show(transcript);
  for (; shown < heard.length; shown++) reader.append(heard[shown]);
}

function showFacts() {
  const { transcript, fields, corrections } = open;
  if (!transcript) return byId("facts").replaceChildren();
  const found = new Set(transcript.segments.map((segment) => segment.language).filter(Boolean));
  const count = wordsIn(
    reader.original === transcript ? reader.current.segments.map(({ text }) => text).join(" ") : transcript.text,
  ).length;
  const speakers = new Set(transcript.segments.map((segment) => segment.speaker).filter(Boolean)).size;
  const edits = Object.keys(corrections).length;
  byId("facts").textContent = [
    length(transcript.duration_s),
    `${count.toLocaleString()} ${count === 1 ? "word" : "words"}`,
    speakers ? `${speakers} ${speakers === 1 ? "speaker" : "speakers"}` : "",
    nameOf(transcript.language) || [...found].map(nameOf).join(", "),
    transcript.model || Object.fromEntries(fields).model,
    edits ? `${edits} ${edits === 1 ? "paragraph" : "paragraphs"} corrected` : "",
  ]
    .filter(Boolean)
    .join(" · ");
  const scored = transcript.segments.some((segment) => segment.scores.length);
  byId("tint-choice").hidden = !scored;
}

function showProgress() {
  const busy = open.state !== "done";
  const failed = open.state === "failed";
  byId("progress").hidden = !busy;
  byId("progress-text").textContent = failed ? failureOf(open) : busy ? stateOf(open) : "";
  byId("progress-text").classList.toggle("wrong", failed);
  byId("work").hidden = failed;
  if (busy) showShare(byId("work"), open);
  byId("retry").hidden = !failed;
}

/** Hide the player of what neither the server nor the browser can read: it is probably no recording. */
function hideUnplayable() {
  if (open?.state === "failed" && byId("audio").error) byId("player").hidden = true;
}
byId("audio").addEventListener("error", hideUnplayable);

byId("back").addEventListener("click", close);
byId("retry").addEventListener("click", () => retry(open));

byId("tools").addEventListener("click", async ({ target }) => {
  const { format } = target.dataset;
  if (!format) return;
  const entry = open;
  const current = reader.current;
  // Probabilities are the larger half of a transcript, and only JSON has them.
  if (format !== "json") current.segments = current.segments.map((segment) => ({ ...segment, scores: [] }));
  try {
    const url = URL.createObjectURL(new Blob([await written(current, format)], { type: TYPES[format] }));
    const name = `${entry.name.replace(/\.[^.]{1,5}$/u, "")}.${format}`;
    element("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // the download may not have begun yet
    say(`Saved as ${name}.`);
  } catch (error) {
    say(`Not saved: ${error.message}`);
  }
});

byId("tint").checked = setting("tint", "true") === "true";
byId("tint").addEventListener("change", ({ target }) => {
  keepSetting("tint", target.checked);
  byId("text").classList.toggle("plain", !target.checked);
});
byId("text").classList.toggle("plain", !byId("tint").checked);

byId("again-file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  if (!file || !open) return;
  player.load(file);
  if (open.transcript) player.show(open.transcript);
  await recordings.attach(open, file);
  target.value = "";
});

// Files

async function add(files) {
  const added = [];
  for (const file of files) added.push(await recordings.add(file, file.name, fields()));
  batch = added;
  if (added.length) await show(added.find(({ state }) => state !== "failed") ?? added[0]);
}

byId("files").addEventListener("change", async ({ target }) => {
  await add([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
});

onRecorded((file) => add([file]), say);

addEventListener("beforeunload", (event) => {
  if (records() || recordings.busy) event.preventDefault();
});

const here = LOCAL.includes(location.hostname);
byId("privacy").textContent =
  `Recordings go to ${here ? "the server on this machine" : location.hostname} and nowhere else. ` +
  "This browser keeps them with their texts until you remove them.";

for (const entry of await recordings.read()) {
  byId("list").append(rowOf(entry).node);
  draw(entry);
}
try {
  offer(await models());
} catch (error) {
  say(`The models are not known: ${error.message}`);
}
document.body.dataset.ready = "true";
