"""Which windows of speech have the same voice: their embeddings, and clusters of these.

Clusters are agglomerated by average linkage on cosine distance, which is deterministic and works from two windows
on. The average cosine between the members of two clusters is the product of the means of their unit vectors, so a
cluster is kept as its mean and its size. Windows as in FunASR ``funasr/models/campplus/utils.py`` (``sv_chunk``);
its clustering, which finds too many speakers in short recordings, is in `funasr_clusters.py`.
"""

from collections.abc import Iterator

import numpy as np

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.speaker_model import SpeakerModel

Span = tuple[float, float]  # start and end, in seconds
WINDOW_S, STEP_S = 1.5, 0.75
FEW_WINDOWS = 4  # a cluster of fewer is part of the nearest one with more, if there is one
SMALL_SHARE, SMALL_MARGIN = 0.03, 0.1  # a cluster of a smaller share of the windows must be that much further away
# Clusters are one voice from this average cosine between them on, as a share of that within them. The latter is at
# least the second number, and leaves out windows up to the third number apart.
SAME_VOICE, LEAST_WITHIN, NEAR_WINDOWS = 0.65, 0.05, 2
# Telephone sound has less than this share of its power above the second frequency. What is below the first one may
# be hum or a constant, and does not count. In talks of real voices, it was 1e-4 or more; 16 bits leave 1e-8.
TELEPHONE_HZ, TELEPHONE_SHARE = (300, 4200), 1e-5
MOST_CLUSTERS = 2000  # that are compared with each other, in 16 MB; more windows are first joined with neighbours


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
    """Return the power (2,) of `samples` (samples,) above each frequency of `TELEPHONE_HZ`."""
    # A Hann window, or the step from the end to the beginning would have power at all frequencies.
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2  # (frequencies,)
    return np.array([power[int(hertz * len(samples) / rate_hz) + 1 :].sum() for hertz in TELEPHONE_HZ])


def cluster(
    vectors: np.ndarray,
    threshold: float,
    fewest: int = 1,
    most: int | None = None,
    *,
    join_alike: bool = False,
) -> np.ndarray:
    """Return the cluster (windows,) of each window, numbered in order of appearance.

    Args:
        vectors: (windows, width) embeddings in order of time.
        threshold: clusters whose members have at least this cosine distance on average stay separate; small ones,
            see `SMALL_SHARE`, only if they have `SMALL_MARGIN` more.
        fewest: of the clusters.
        most: of the clusters; None is no limit. There may still be fewer than `fewest` if there is too little
            speech.
        join_alike: join clusters that sound like one voice, see `SAME_VOICE`. This has no effect where
            there would be fewer than `fewest`.
    """
    if not len(vectors):
        return np.zeros(0, int)
    if fewest > 1 or most is not None:  # a cut elsewhere would count unusual windows as a speaker
        usual = cluster(vectors, threshold, join_alike=join_alike)
        if usual.max() + 1 >= fewest:
            return _most_alike_joined(of_length_one(vectors), usual, most or len(usual))
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
    found = in_order(_without_few(best, means, sizes, 1 - threshold - SMALL_MARGIN, fewest)[groups])
    return _most_alike_joined(units, found) if join_alike and fewest <= 1 and most is None else found


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


def _most_alike_joined(units: np.ndarray, labels: np.ndarray, most: int | None = None) -> np.ndarray:
    """Join the two clusters that are most like one voice, until there are at most `most`.

    None joins them while they are as alike as `SAME_VOICE`.

    How alike windows of one voice are depends on the recording: noise makes them less alike, a telephone more. So
    the average cosine between two clusters is compared with that within them (its geometric mean). Windows that
    overlap or touch are left out of it, since what they share makes them alike.
    """
    sizes = np.bincount(labels)
    sums = np.zeros((len(sizes), units.shape[1]))  # float64: near windows are taken off one by one
    np.add.at(sums, labels, units)
    totals, pairs = sums @ sums.T, np.outer(sizes, sizes).astype(float)  # (clusters, clusters)
    for distance in range(NEAR_WINDOWS + 1):  # take off what windows have in common with near ones
        before, after = labels[: len(labels) - distance], labels[distance:]
        near = (units[: len(before)] * units[distance:]).sum(axis=1)
        for one, other in ((before, after), (after, before)) if distance else ((before, after),):
            np.subtract.at(totals, (one, other), near)
            np.subtract.at(pairs, (one, other), 1)
    while len(totals) > (most or 1):
        alike = totals / np.maximum(pairs, 1)  # average cosines
        within = np.sqrt(np.maximum(np.diag(alike), LEAST_WITHIN))
        ratios = alike / np.outer(within, within)
        ratios[np.triu_indices(len(ratios))] = -np.inf  # all others may be negative
        gone, kept = np.unravel_index(ratios.argmax(), ratios.shape)
        if most is None and ratios[gone, kept] < SAME_VOICE:
            break
        labels = np.where(labels == gone, kept, labels - (labels > gone))
        for table in (totals, pairs):
            table[kept] += table[gone]
            table[:, kept] += table[:, gone]
        totals, pairs = (np.delete(np.delete(each, gone, 0), gone, 1) for each in (totals, pairs))
    return in_order(labels)


def in_order(labels: np.ndarray) -> np.ndarray:
    """Number labels in order of appearance."""
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    place = np.empty(len(names), int)
    place[np.argsort(first)] = np.arange(len(names))
    return place[inverse]
