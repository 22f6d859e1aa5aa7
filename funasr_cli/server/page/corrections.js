// Merge corrected texts into a transcript. Words that stay keep their times; others share the time between them.

// A word, or one character of a script without spaces, with the punctuation around it.
const UNSPACED = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}";
const AFTER = "(?:(?![\\p{Ps}\\p{Pi}])[\\p{P}\\p{S}ー])*";
const WORD = new RegExp(`[\\p{P}\\p{S}]*[${UNSPACED}]${AFTER}|[^\\s${UNSPACED}]+`, "gu");

/** Return the words of a text. */
export function wordsIn(text) {
  return text.match(WORD) ?? [];
}

/** Return the text on one line, with single spaces. */
export function oneLine(text) {
  return text.replace(/\s+/gu, " ").trim();
}

/** Return a transcript with corrected texts in place of some segments' own. `corrections`: texts by index. */
export function corrected(transcript, corrections) {
  const segments = transcript.segments.map((segment, index) =>
    index in corrections ? correctedSegment(segment, corrections[index]) : segment,
  );
  return { ...transcript, segments };
}

/** Return a segment with another text. Probabilities were those of the old text, so none are left. */
export function correctedSegment(segment, text) {
  if (text === segment.text) return segment;
  const words = segment.words.length ? retimed(segment.words, wordsIn(text), segment) : [];
  return { ...segment, text, words, pieces: [], scores: [] };
}

/** Return new words with times, from old words that have some. */
export function retimed(old, texts, segment) {
  const words = [];
  const pairs = [
    ...kept(
      old.map((word) => word.text),
      texts,
    ),
    [old.length, texts.length],
  ];
  let [oldFrom, newFrom] = [0, 0];
  for (const [oldTo, newTo] of pairs) {
    const start_s = oldFrom < oldTo ? old[oldFrom].start_s : (words.at(-1)?.end_s ?? segment.start_s);
    const end_s = oldFrom < oldTo ? old[oldTo - 1].end_s : (old[oldTo]?.start_s ?? segment.end_s);
    const { speaker = null } = segment; // one for all words: segments are cut where the speaker changes
    const made = spread(texts.slice(newFrom, newTo), start_s, Math.max(start_s, end_s));
    words.push(...made.map((word) => ({ ...word, speaker })));
    if (oldTo < old.length) words.push(old[oldTo]);
    [oldFrom, newFrom] = [oldTo + 1, newTo + 1];
  }
  return words;
}

/** Divide a span of time among words, by the lengths of their texts. */
function spread(texts, start_s, end_s) {
  const total = texts.reduce((sum, text) => sum + text.length, 0);
  let before = 0;
  return texts.map((text) => {
    const start = start_s + ((end_s - start_s) * before) / total;
    before += text.length;
    const end = start_s + ((end_s - start_s) * before) / total;
    return { text, start_s: start, end_s: end, score: null, estimated: true };
  });
}

/** Return the pairs of indices of a longest common subsequence. */
export function kept(before, after) {
  let first = 0;
  while (first < Math.min(before.length, after.length) && before[first] === after[first]) first++;
  let last = 0;
  const room = Math.min(before.length, after.length) - first;
  while (last < room && before.at(-1 - last) === after.at(-1 - last)) last++;
  const [rows, columns] = [before.length - first - last, after.length - first - last];
  const lengths = Array.from({ length: rows + 1 }, () => new Uint32Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      const same = before[first + i] === after[first + j];
      lengths[i][j] = same ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const pairs = Array.from({ length: first }, (_, i) => [i, i]);
  for (let i = 0, j = 0; i < rows && j < columns;) {
    if (before[first + i] === after[first + j]) pairs.push([first + i++, first + j++]);
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  for (let i = 0; i < last; i++) pairs.push([before.length - last + i, after.length - last + i]);
  return pairs;
}
