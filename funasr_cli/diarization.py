"""Who speaks when: windows of speech, clusters of their embeddings, turns.

Clusters are agglomerated by average linkage on cosine distance, which is deterministic and works from two windows
on. The average cosine between the members of two clusters is the product of the means of their unit vectors, so a
cluster is kept as its mean and its size. Windows as in FunASR ``funasr/models/campplus/utils.py`` (``sv_chunk``);
its clustering, which finds too many speakers in short recordings, is in `funasr_clusters.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.speaker_model import SpeakerModel

Span = tuple[float, float]  # start and end, in seconds
WINDOW_S, STEP_S = 1.5, 0.75
SHORTEST_TURN_S = 0.7
FEW_WINDOWS = 4  # a cluster of fewer is part of the nearest one with more, if there is one
SMALL_SHARE, SMALL_MARGIN = 0.03, 0.1  # a cluster of a smaller share of the windows must be that much further away
TELEPHONE_HZ, TELEPHONE_SHARE = 4200, 1e-6  # telephone sound has less than this share of its power above that
TELEPHONE_MARGIN = 0.08  # by which voices are more alike there
MOST_CLUSTERS = 2000  # that are compared with each other, in 16 MB; more windows are first joined with neighbours


@dataclass(frozen=True)
class Turn:
    """A stretch of speech of one speaker."""

    start_s: float
    end_s: float
    speaker: int


def windows(duration_s: float) -> Iterator[Span]:
    """Yield start and end of the windows of a segment, in seconds from its start.

    The last one ends with the segment. A segment that is shorter than a window has one, which ends later.
    """
    start_s = 0.0
    while start_s + WINDOW_S < duration_s:
        yield start_s, start_s + WINDOW_S
        start_s += STEP_S
    last_s = max(0.0, duration_s - WINDOW_S)
    yield last_s, last_s + WINDOW_S


def embedded(audio: AudioSegment, model: SpeakerModel) -> tuple[list[Span], np.ndarray]:
    """Return the windows of a segment, in seconds of the recording, and their embeddings (windows, width)."""
    rate_hz = model.sample_rate_hz
    size = round(WINDOW_S * rate_hz)
    spans = list(windows(len(audio.samples) / rate_hz))
    padded = np.pad(audio.samples, (0, max(0, size - len(audio.samples))))
    starts = [min(round(start_s * rate_hz), len(padded) - size) for start_s, _ in spans]
    clips = np.stack([padded[start : start + size] for start in starts])  # (windows, samples)
    return [(audio.start_s + a, audio.start_s + b) for a, b in spans], model.embed(clips)


def powers(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the power (2,) of `samples` (samples,) in all and above `TELEPHONE_HZ`."""
    power = np.abs(np.fft.rfft(samples)) ** 2  # (frequencies,)
    return np.array([power.sum(), power[int(TELEPHONE_HZ * len(samples) / rate_hz) + 1 :].sum()])


def cluster(vectors: np.ndarray, threshold: float, fewest: int = 1, most: int | None = None) -> np.ndarray:
    """Return the cluster (windows,) of each window, numbered in order of appearance.

    Args:
        vectors: (windows, width) embeddings in order of time.
        threshold: clusters whose members have at least this cosine distance on average stay separate; small ones,
            see `SMALL_SHARE`, only if they have `SMALL_MARGIN` more.
        fewest: of the clusters.
        most: of the clusters; None is no limit. There may still be fewer than `fewest` if there is too little
            speech.
    """
    if not len(vectors):
        return np.zeros(0, int)
    if fewest > 1 or most is not None:  # a cut elsewhere would count unusual windows as a speaker
        usual = cluster(vectors, threshold)
        if fewest <= usual.max() + 1 <= (most or len(usual)):
            return usual
    units = of_length_one(vectors)
    groups, means, sizes = _neighbours_joined(units)
    merges = list(_merges(means, sizes))
    labels = np.arange(len(means))
    best, best_rank = labels, (3, 0)
    counts = sizes.copy()
    large = int((counts >= FEW_WINDOWS).sum())
    for step, (kept, gone, similarity) in enumerate([(0, 0, 1.0), *merges]):
        if step:
            large -= int(counts[kept] >= FEW_WINDOWS) + int(counts[gone] >= FEW_WINDOWS)
            counts[kept] += counts[gone]
            counts[gone] = 0
            large += int(counts[kept] >= FEW_WINDOWS)
            labels = np.where(labels == gone, kept, labels)
        number = max(large, 1)
        outside = max(fewest - number, 0) + (max(number - most, 0) if most is not None else 0)
        # The number comes first, then a merge below the threshold, then as few clusters as possible.
        rank = outside, int(step > 0 and similarity < 1 - threshold)
        if fewest == most:
            rank = outside, 0
        if step == 0 or rank <= best_rank:
            best, best_rank = labels, rank
    return in_order(_without_few(best, means, sizes, 1 - threshold - SMALL_MARGIN, fewest)[groups])


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (vectors, width) with length 1, so that products are cosines."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _neighbours_joined(units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join neighbouring windows, the most similar first, until `MOST_CLUSTERS` are left.

    Returns:
        The group (windows,) of each window; the mean (groups, width) and the size (groups,) of each group.
    """
    borders = np.arange(len(units))  # first window of each group
    while len(borders) > MOST_CLUSTERS:
        sizes = np.diff([*borders, len(units)])
        means = np.add.reduceat(units, borders) / sizes[:, None]
        alike = (means[1:] * means[:-1]).sum(axis=1)  # (groups - 1,)
        excess = min(len(borders) - MOST_CLUSTERS, len(alike) // 4 or 1)
        joined, taken = set[int](), set[int]()
        for place in np.argsort(-alike, kind="stable"):
            if len(joined) == excess:
                break
            if not {place, place + 1} & taken:
                joined.add(int(place) + 1)
                taken |= {int(place), int(place) + 1}
        borders = np.delete(borders, sorted(joined))
    sizes = np.diff([*borders, len(units)])
    groups = np.repeat(np.arange(len(borders)), sizes)
    return groups, np.add.reduceat(units, borders) / sizes[:, None], sizes


def _merges(means: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Yield which two clusters are merged next, and the average cosine of their members, until one is left."""
    alike, sizes = (means @ means.T).astype(np.float32), sizes.astype(np.float64)  # (clusters, clusters)
    np.fill_diagonal(alike, -np.inf)
    nearest = alike.argmax(axis=1)
    for _ in range(len(means) - 1):
        rows = np.arange(len(means))
        first = int(alike[rows, nearest].argmax())
        kept, gone = sorted((first, int(nearest[first])))
        yield kept, gone, float(alike[kept, gone])
        share = sizes[kept] / (sizes[kept] + sizes[gone])
        row = (share * alike[kept] + (1 - share) * alike[gone]).astype(np.float32)
        row[[kept, gone]] = -np.inf
        alike[kept] = alike[:, kept] = row
        alike[gone] = alike[:, gone] = -np.inf
        sizes[kept] += sizes[gone]
        # A merged cluster is no closer to others than the closer of its parts, so only these rows change.
        stale = np.flatnonzero((nearest == kept) | (nearest == gone))
        nearest[stale] = alike[stale].argmax(axis=1)
        nearest[kept] = alike[kept].argmax()


def _without_few(
    labels: np.ndarray, means: np.ndarray, sizes: np.ndarray, least_alike: float, fewest: int
) -> np.ndarray:
    """Give clusters of few windows to the nearest other one, and small ones to a large one that is alike enough.

    Small ones are what a voice sounds like now and then. There are more of them in long recordings, where a voice
    has more unusual windows. As many clusters as are asked for are kept.
    """
    names, inverse = np.unique(labels, return_inverse=True)
    counts = np.bincount(inverse, weights=sizes)
    sums = np.zeros((len(names), means.shape[1]))
    np.add.at(sums, inverse, means * sizes[:, None])
    centres = sums / counts[:, None]
    alike = centres @ centres.T  # average cosines, (clusters, clusters)
    kept, place = counts >= FEW_WINDOWS, np.arange(len(names))
    if not kept.any():  # everybody has few: one speaker
        return np.zeros_like(labels)
    large = np.flatnonzero(kept & (counts >= SMALL_SHARE * counts.sum()))
    if len(large):
        nearest = alike[:, large].max(axis=1)
        small = [each for each in np.setdiff1d(np.flatnonzero(kept), large) if nearest[each] >= least_alike]
        small.sort(key=lambda each: -nearest[each])
        kept[small[: max(int(kept.sum()) - fewest, 0)]] = False
    place[~kept] = np.flatnonzero(kept)[alike[~kept][:, kept].argmax(axis=1)]
    return place[inverse]


def in_order(labels: np.ndarray) -> np.ndarray:
    """Number labels in order of appearance."""
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    place = np.empty(len(names), int)
    place[np.argsort(first)] = np.arange(len(names))
    return place[inverse]


def turns(spans: Sequence[Span], labels: Sequence[int], end_s: float) -> list[Turn]:
    """Return the turns of a segment from its windows' times and clusters; they cover it without gaps.

    Where windows of two speakers overlap, the turns meet in the middle of the overlap. A turn shorter than
    `SHORTEST_TURN_S` becomes part of its longer neighbour.
    """
    borders = [(before[1] + after[0]) / 2 for before, after in pairwise(spans)]
    starts, ends = [spans[0][0], *borders], [*borders, end_s]
    found = _joined([Turn(*each) for each in zip(starts, ends, map(int, labels), strict=True)])
    while len(found) > 1:
        place = min(range(len(found)), key=lambda i: found[i].end_s - found[i].start_s)
        if found[place].end_s - found[place].start_s >= SHORTEST_TURN_S:
            break
        neighbours = [each for each in (place - 1, place + 1) if 0 <= each < len(found)]
        longer = max(neighbours, key=lambda i: found[i].end_s - found[i].start_s)
        found[place] = replace(found[place], speaker=found[longer].speaker)
        found = _joined(found)
    return found


def _joined(found: Sequence[Turn]) -> list[Turn]:
    """Join neighbouring turns of one speaker."""
    joined: list[Turn] = []
    for turn in found:
        if joined and joined[-1].speaker == turn.speaker:
            joined[-1] = replace(joined[-1], end_s=turn.end_s)
        else:
            joined.append(turn)
    return joined


def speaker_of(start_s: float, end_s: float, found: Sequence[Turn]) -> int:
    """Return who speaks longest between two times; the nearest speaker if none of them does."""

    def overlap_s(speaker: int) -> float:
        own = (turn for turn in found if turn.speaker == speaker)
        return sum(max(0.0, min(turn.end_s, end_s) - max(turn.start_s, start_s)) for turn in own)

    longest = max(dict.fromkeys(turn.speaker for turn in found), key=overlap_s)
    if overlap_s(longest):
        return longest
    return min(found, key=lambda turn: max(turn.start_s - end_s, start_s - turn.end_s)).speaker
