// The parts of a recording that have no complete text. Nothing is left out silently.

import { length } from "./clock.js";

const REASONS = {
  budget: "the text is cut short: the model reached its limit",
  loop: "the text is cut short: it repeated itself",
  nonfinite: "the text is cut short: the model failed",
};

/** Return the holes of a transcript, in order: times in seconds, and why. */
export function holesOf(transcript) {
  const holes = transcript.segments
    .filter((segment) => segment.state === "failed")
    .map(({ start_s, end_s, stop_reason }) => ({ start_s, end_s, why: REASONS[stop_reason] ?? "no complete text" }));
  for (const [start_s, end_s] of transcript.lost) holes.push({ start_s, end_s, why: "damaged audio" });
  if (transcript.unread_s) {
    const end_s = transcript.start_s + transcript.duration_s;
    holes.push({ start_s: end_s - transcript.unread_s, end_s, why: "the recording could not be read to its end" });
  }
  return holes.sort((one, other) => one.start_s - other.start_s);
}

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
