"""When each word was said: the decoder's text, aligned with what the CTC branch heard.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``: the text, spelled in the CTC branch's
vocabulary, force-aligned on its posteriors). What differs: upstream aligns the text as it stands, capitals, commas
and digits, which the CTC branch never says, among it; here what both agree on is aligned as the CTC branch itself
spells it, and what it cannot have said is given the time that is left. Upstream's times are those of its tokens'
frames, here they are put between them.
"""

from itertools import pairwise

import numpy as np

from funasr_cli.decoding.ctc import CTCReading, CTCVocabulary
from funasr_cli.decoding.labels import Group, Plan
from funasr_cli.decoding.units import folded
from funasr_cli.models.alignment import BLANK, AlignmentError, align
from funasr_cli.transcript import Word

# Where the middle of a CTC frame is: feature frame 6 t, whose window of 25 ms begins at 60 t ms.
MIDDLE_S = 0.0125
LEAD_S = 0.1
TRAIL_S = 0.1

Span = tuple[float, float]


def time_words(
    text: str, reading: CTCReading, vocabulary: CTCVocabulary, start_s: float, end_s: float
) -> tuple[Word, ...]:
    """The words of a segment.

    Args:
        text: what the decoder wrote.
        reading: what the CTC branch made of the same segment.
        vocabulary: of the reading's labels.
        start_s: where the segment begins.
        end_s: where it ends.

    Returns:
        In order, without overlaps, within the segment; joined with the text's own spaces they are the text. Nothing
        if no label can be aligned: there are none, they do not fit into the frames, or the posteriors are not
        finite.
    """
    plan = Plan(text, reading, vocabulary)
    if not plan.labels or not plan.spans:
        return ()
    try:
        frames, probabilities = place(plan.labels, reading)
    except AlignmentError:
        return ()
    spans_s = _spans(plan.groups, frames * reading.frame_duration_s + MIDDLE_S, end_s - start_s)
    words = []
    for group, span_s in zip(plan.groups, spans_s, strict=True):
        score = float(probabilities[group.labels].min()) if group.measured else None
        texts = [text[slice(*plan.spans[word])] for word in group.words]
        for word_text, (first_s, last_s) in zip(texts, _shares(texts, span_s), strict=True):
            words.append(Word(word_text, start_s + first_s, min(start_s + last_s, end_s), score, not group.measured))
    return tuple(words)


def place(labels: list[int], reading: CTCReading) -> tuple[np.ndarray, np.ndarray]:
    """Align labels with a segment: (labels, 2) first and last frame of each, (labels,) its highest probability.

    Raises:
        AlignmentError: they cannot be aligned.
    """
    classes = sorted({reading.blank_id, *labels})
    log_probs = reading.log_probs(classes)  # (frames, classes)
    columns = {label: column for column, label in enumerate(classes)}
    own = np.array([columns[label] for label in labels])
    path = align(log_probs, own, columns[reading.blank_id])  # (frames,)
    spoken = np.flatnonzero(path != BLANK)  # frames that say a label
    said = path[spoken]  # which one, ascending
    first = np.searchsorted(said, np.arange(len(labels)))  # (labels,) positions in both
    last = np.append(first[1:], len(said)) - 1
    logprobs = np.maximum.reduceat(log_probs[spoken, own[said]], first)
    return np.stack([spoken[first], spoken[last]], axis=1), np.exp(logprobs)


def _spans(groups: list[Group], middles_s: np.ndarray, duration_s: float) -> list[Span]:
    """When each group was said, within the segment.

    Args:
        groups: in order.
        middles_s: (labels, 2) middle of each label's first and last frame.
        duration_s: of the segment.
    """
    spans_s: list[Span | None] = [None] * len(groups)
    for index, group in enumerate(groups):
        if group.labels:
            first_s, last_s = float(middles_s[group.labels.start, 0]), float(middles_s[group.labels.stop - 1, 1])
            spans_s[index] = first_s - LEAD_S, last_s + TRAIL_S
    return _in_order(spans_s, duration_s)


def _in_order(spans_s: list[Span | None], duration_s: float) -> list[Span]:
    """Without overlaps and within the segment; what has no span of its own takes what its neighbours leave."""
    ordered: list[Span] = []
    for index, span_s in enumerate(spans_s):
        earliest_s = ordered[-1][1] if ordered else 0.0
        latest_s = next((later[0] for later in spans_s[index + 1 :] if later), duration_s)
        first_s, last_s = span_s or (earliest_s, latest_s)
        first_s = min(max(first_s, earliest_s), duration_s)
        ordered.append((first_s, min(max(first_s, min(last_s, latest_s)), duration_s)))
    return ordered


def _shares(texts: list[str], span_s: Span) -> list[Span]:
    """A span shared out among words by their length."""
    if not texts:
        return []
    lengths = [len(folded(text)) for text in texts]
    ends_s = span_s[0] + np.cumsum([0, *lengths]) / sum(lengths) * (span_s[1] - span_s[0])
    return list(pairwise(ends_s.tolist()))
