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

# Where the middle of the first CTC frame is: that of its middle feature frame, 25 ms long. Others follow evenly.
FIRST_MIDDLE_S = 0.0125
# CTC says a word somewhere in its middle, in a frame or two. Of words in a flow the border is taken half-way
# between; next to a pause a word reaches so far beyond its frames, about half of a slow word. Measured on training
# voices and sentences of the demo model (`funasr_cli.demo.recipe clips --training`), never on held-out ones: the
# first word begins 0.09 s (English) or 0.11 s (Mandarin) before its first frame, the last one ends 0.25 or 0.15 s
# behind its last.
REACH_S = 0.2
FIRST_REACH_S = 0.1  # of the first word, forwards

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
        In order, without overlaps, within the segment; joined with the text's own spaces they are the text. A
        score is that of the least likely label, each at its best frame. Nothing if the labels cannot be aligned:
        there are none, they do not fit into the frames, or the posteriors are not finite.
    """
    plan = Plan(text, reading, vocabulary)
    if not plan.labels or not plan.spans:
        return ()
    try:
        frames, probabilities = place(plan.labels, reading)
    except AlignmentError:
        return ()
    frame_s = reading.frame_duration_s
    spans_s = _spans(plan.groups, frames * frame_s + FIRST_MIDDLE_S, frame_s, end_s - start_s)
    words = []
    for group, span_s in zip(plan.groups, spans_s, strict=True):
        score = float(probabilities[group.labels].min()) if group.measured else None
        texts = [text[slice(*plan.spans[word])] for word in group.words]
        for word_text, (first_s, last_s) in zip(texts, _shares(texts, span_s), strict=True):
            words.append(
                Word(word_text, start_s + first_s, min(start_s + last_s, end_s), score, not group.measured)
            )
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
    return np.stack([spoken[first], spoken[last]], axis=1), np.exp(np.minimum(logprobs, 0))


def _spans(groups: list[Group], middles_s: np.ndarray, frame_s: float, duration_s: float) -> list[Span]:
    """When each group was said, within the segment.

    Args:
        groups: in order.
        middles_s: (labels, 2) middle of each label's first and last frame.
        frame_s: from one frame to the next.
        duration_s: of the segment.
    """
    cores = [
        (float(middles_s[group.labels.start, 0]), float(middles_s[group.labels.stop - 1, 1]))
        if group.labels
        else None
        for group in groups
    ]
    spans_s: list[Span | None] = []
    for index, core in enumerate(cores):
        before = _reach(cores[index - 1], core, frame_s) if index else FIRST_REACH_S
        behind = _reach(core, cores[index + 1], frame_s) if index + 1 < len(cores) else REACH_S
        spans_s.append((core[0] - before, core[1] + behind) if core else None)
    return _in_order(spans_s, duration_s)


def _reach(core: Span | None, following: Span | None, frame_s: float) -> float:
    """How far two neighbours reach towards each other: half-way; only to the frame's end if one has no frames."""
    return min((following[0] - core[1]) / 2, REACH_S) if core and following else frame_s / 2


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
    lengths = [max(1, len(folded(text))) for text in texts]
    ends_s = np.interp(np.cumsum([0, *lengths]), [0, sum(lengths)], span_s).clip(*span_s)
    return list(pairwise(ends_s.tolist()))
