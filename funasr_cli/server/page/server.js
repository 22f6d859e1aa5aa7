// Requests to the server. The key is kept for this tab only.

import { Events } from "./events.js";

const KEY = "funasr.key";

/** An answer that is an error. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => {};
/** Set the function that asks the user for the key; it may be called again if the key is wrong. */
export const onKeyWanted = (ask) => (askForKey = ask);
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

const authorization = () => {
  const key = sessionStorage.getItem(KEY);
  // Headers hold bytes; the server reads them as UTF-8.
  return key ? { Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}` } : {};
};

/** Do something that needs the key, and again each time that a key has been given. */
async function withKey(act) {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (error.status !== 401) throw error;
      await askForKey(Boolean(sessionStorage.getItem(KEY)));
    }
  }
}

/** Return the error of an answer's body. */
function refusal(status, text) {
  try {
    return new Refusal(status, JSON.parse(text).error.message);
  } catch {
    return new Refusal(status, status ? `the server answered ${status}` : "the server cannot be reached");
  }
}

async function send(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } }).catch(
    () => {
      throw refusal(0, "");
    },
  );
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return answer;
}

/** Return the models, each with its languages and capabilities. */
export const models = () => withKey(async () => (await (await send("v1/models")).json()).data);

/** Return a transcript in another format, written by the server. */
export const written = (transcript, format) =>
  withKey(async () => {
    const headers = { "Content-Type": "application/json" };
    return (
      await send(`v1/transcripts/${format}`, { method: "POST", headers, body: JSON.stringify(transcript) })
    ).text();
  });

/**
 * Transcribe a recording, and return the transcript.
 *
 * `fields` are those of the request. `hear` is called with {uploaded: share} and {segment}. `signal` aborts.
 */
export const transcribe = (blob, fields, hear, signal) => withKey(() => attempt(blob, fields, hear, signal));

function attempt(blob, fields, hear, signal) {
  // Unlike fetch, XMLHttpRequest tells how much has been uploaded.
  const request = new XMLHttpRequest();
  const events = new Events();
  const form = new FormData();
  for (const [name, value] of [...fields, ["response_format", "full_json"], ["stream", "true"]])
    form.append(name, value);
  form.append("file", blob, "recording");
  return new Promise((resolve, reject) => {
    let transcript;
    const read = () => {
      if (request.status !== 200) return;
      for (const event of events.read(request.responseText)) {
        if (event.error) return reject(new Refusal(500, event.error.message));
        if (event.type === "transcript.text.segment") hear({ segment: event });
        if (event.type === "transcript.text.done") transcript = event.transcript;
      }
    };
    request.upload.onprogress = ({ loaded, total }) => hear({ uploaded: loaded / total });
    request.upload.onload = () => hear({ uploaded: 1 });
    request.onprogress = read;
    request.onload = () => {
      read();
      if (request.status !== 200) reject(refusal(request.status, request.responseText));
      else if (transcript) resolve(transcript);
      else reject(new Refusal(0, "the answer is incomplete"));
    };
    request.onerror = () => reject(new Refusal(0, "the connection to the server was lost"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", "v1/audio/transcriptions");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.send(form);
  });
}
