// The parts of a recording that have no complete text. Nothing is left out silently.

import { length } from "./clock.js";

const TIMED = /^([\d.]+)-([\d.]+) s: (.*)$/su; // a warning about a part of the recording
const NEAR_S = 0.06; // warnings have one or two decimals

/** Return the holes of a transcript, in order: times in seconds, and why. */
export function holesOf(transcript) {
  const warnings = transcript.warnings.map((text) => TIMED.exec(text)).filter(Boolean);
  const why = (start_s, end_s) =>
    warnings.find((found) => near(found[1], start_s) && near(found[2], end_s))?.[3] ?? "there is no complete text";
  const failed = transcript.segments.filter((segment) => segment.state === "failed");
  const spans = [...failed.map(({ start_s, end_s }) => [start_s, end_s]), ...transcript.lost];
  const holes = spans.map(([start_s, end_s]) => ({ start_s, end_s, why: why(start_s, end_s) }));
  if (transcript.unread_s) {
    const end_s = transcript.start_s + transcript.duration_s;
    holes.push({ start_s: end_s - transcript.unread_s, end_s, why: transcript.fault ?? "this could not be read" });
  }
  return holes.sort((one, other) => one.start_s - other.start_s);
}

/** Return all that a reader should know: notes without times first, then holes and other notes by their times. */
export function notesOf(transcript) {
  const holes = holesOf(transcript);
  const notes = [];
  for (const text of transcript.warnings) {
    const found = TIMED.exec(text);
    const [start_s, end_s] = found ? [Number(found[1]), Number(found[2])] : [-1, -1];
    const known = holes.some((hole) => near(hole.start_s, start_s) && near(hole.end_s, end_s));
    if (!known) notes.push(found ? { start_s, end_s, why: found[3] } : { why: text });
  }
  if (transcript.fault && !transcript.unread_s) notes.push({ why: transcript.fault });
  const timed = [...holes, ...notes.filter((note) => note.start_s !== undefined)];
  timed.sort((one, other) => one.start_s - other.start_s);
  return [...notes.filter((note) => note.start_s === undefined), ...timed];
}

const near = (one, other) => Math.abs(one - other) < NEAR_S;

/** Return a sentence about what was transcribed, and what was not. */
export function accountOf(transcript) {
  const { transcribed_s, repaired_s, failed_s, doubtful_s } = transcript.ledger;
  const speech_s = transcribed_s + repaired_s + failed_s;
  if (!speech_s) return "No speech was found.";
  const parts = [failed_s ? `${length(failed_s)} of ${length(speech_s)} of speech have no complete text` : ""];
  if (!failed_s) parts[0] = `All ${length(speech_s)} of speech are transcribed`;
  if (doubtful_s) parts.push(`${length(doubtful_s)} are doubtful`);
  return `${parts.join("; ")}.`;
}

/** Return the parts of the time line: [start, end, kind] with the kinds "speech", "doubtful" and "hole". */
export function coverage(transcript) {
  const speech = transcript.segments
    .filter((segment) => segment.state !== "failed")
    .map((segment) => [segment.start_s, segment.end_s, segment.doubtful ? "doubtful" : "speech"]);
  return [...speech, ...holesOf(transcript).map((hole) => [hole.start_s, hole.end_s, "hole"])];
}
