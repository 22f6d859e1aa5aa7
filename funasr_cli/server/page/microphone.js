// The controls for recording from the microphone.

import { clock } from "./clock.js";
import { Recording, whyNot } from "./recorder.js";

const byId = (id) => document.getElementById(id);
const [record, panel, stop, discard] = ["record", "recording", "stop", "discard"].map(byId);
let recording = null;
let [hear, say] = [];

/** Set what is called with each recording, as a file, and with messages. */
export const onRecorded = (...given) => ([hear, say] = given);

/** Whether the microphone is on. */
export const records = () => recording !== null;

function showPanel(on) {
  panel.hidden = !on;
  record.hidden = on;
  (on ? stop : record).focus();
}

function show(seconds, level) {
  byId("level").value = level;
  if (byId("recorded").value !== clock(seconds)) byId("recorded").value = clock(seconds);
}

record.addEventListener("click", async () => {
  try {
    recording = await Recording.begin(show);
    byId("device").textContent = recording.device;
    showPanel(true);
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    say(denied ? "The browser does not allow the microphone." : `No microphone: ${error.message}`);
  }
});

async function end() {
  const [ended, now] = [recording, new Date()];
  recording = null;
  const blob = await ended.end();
  showPanel(false);
  const two = (number) => String(number).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const kind = /mp4|ogg/.exec(blob.type)?.[0] ?? "webm";
  return new File([blob], `Recording ${day} ${two(now.getHours())}.${two(now.getMinutes())}.${kind}`, {
    type: blob.type,
  });
}

stop.addEventListener("click", async () => recording && hear(await end()));
discard.addEventListener("click", async () => {
  if (recording && confirm("Discard what has been recorded?")) await end();
});

const reason = whyNot();
record.disabled = Boolean(reason);
byId("cannot-record").hidden = !reason;
byId("cannot-record").textContent = reason;
