// The timed units of a transcript: words where their times are known, else the model's own parts, else segments.

// Probabilities below which a word is tinted: few words of a right text, and the larger part of the wrong ones.
export const DOUBTFUL = 0.3;
export const UNSURE = 0.6;
const LETTER = /[\p{L}\p{N}]/u;

/**
 * Return the units of a segment, in order. Joined, `before` and `text` of all units are the segment's text,
 * except for white space at its end. `probability` is the word's score; without one, that of its least likely token
 * with a letter or digit, since a doubtful comma makes no doubtful word. It is 1 if the model has no probabilities.
 */
export function unitsOf(segment) {
  const whole = [{ text: segment.text, start_s: segment.start_s, end_s: segment.end_s }];
  const timed = segment.words.length ? segment.words : segment.pieces.length ? segment.pieces : whole;
  const likely = probabilitiesOf(segment);
  const units = [];
  let place = 0;
  for (const part of timed) {
    const found = segment.text.indexOf(part.text, place);
    if (found < 0 || !part.text) continue;
    const own = likely.slice(found, found + part.text.length);
    const least = own.reduce((lowest, each) => Math.min(lowest, each), 1);
    units.push({
      before: segment.text.slice(place, found),
      text: part.text,
      start_s: part.start_s,
      end_s: part.end_s,
      isWord: timed === segment.words,
      probability: segment.scores.length ? (part.score ?? least) : 1,
    });
    place = found + part.text.length;
  }
  if (units.length && segment.text.slice(place).trim()) units.at(-1).text += segment.text.slice(place);
  return units;
}

/** Return the probability of each character of a segment's text; 1 for tokens without a letter or digit. */
function probabilitiesOf(segment) {
  const likely = [];
  for (const score of segment.scores) {
    for (let i = 0; i < score.text.length; i++) likely.push(LETTER.test(score.text) ? score.probability : 1);
  }
  // The first token may begin with a space that the text does not have.
  const spelled = segment.scores.map((score) => score.text).join("");
  return likely.slice(Math.max(0, spelled.length - spelled.trimStart().length));
}

/** Return the kind of tint of a probability: "doubtful", "unsure" or "". */
export function tint(probability) {
  return probability < DOUBTFUL ? "doubtful" : probability < UNSURE ? "unsure" : "";
}

/** Return the index of the last of these ascending starts that is not after a time; -1 if there is none. */
export function indexAt(starts, time_s) {
  let [low, high] = [0, starts.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= time_s) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
