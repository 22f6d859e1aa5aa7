"""An alignment as a picture: the waveform, what the CTC branch heard in each frame, the words at their times."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from funasr_cli.audio.decode import Audio
from funasr_cli.audio.recording import Source
from funasr_cli.characters import columns
from funasr_cli.decoding.ctc import CTCReading, CTCVocabulary
from funasr_cli.decoding.words import FIRST_MIDDLE_S
from funasr_cli.errors import UsageError
from funasr_cli.pictures import drawing, save
from funasr_cli.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from funasr_cli.pipeline import Recognizer

LONGEST_S = 60.0  # words of more could not be told from each other
INCHES_A_SECOND, NARROWEST, HEIGHT, DPI = 2.2, 7.0, 4.4, 130
COLOURS = ("#1f77b4", "#d9730d", "#2a8f3c", "#b3365b", "#6f52a3")  # of words, in turns
GREY, FAINT = "#707070", "#e4e4e4"
COLUMN_INCHES = 0.0095  # of text, for each point of its size
LARGEST, SMALLEST = 10.0, 4.5  # points
MISSING_GLYPH = "Glyph"  # how matplotlib's warning of a character begins that no font has


@dataclass(frozen=True, eq=False)
class Heard:
    """What the CTC branch heard in a segment.

    Attributes:
        times_s: (frames,) the middle of each frame.
        blank: (frames,) probability that nothing is said.
        labels: what each label of its best path spells, in order.
        peaks: (labels,) the frame at which each is likeliest.
        probabilities: (frames, labels).
    """

    times_s: np.ndarray
    blank: np.ndarray
    labels: list[str]
    peaks: np.ndarray
    probabilities: np.ndarray


def read_short(source: Source) -> Audio:
    """All samples of an input that is short enough for a picture.

    Raises:
        AudioError: it cannot be read.
        UsageError: it is too long.
    """
    blocks, count = [], 0
    for block in source.blocks():
        blocks.append(block)
        count += len(block)
        if count > LONGEST_S * source.sample_rate_hz:
            longest = f"a picture shows {LONGEST_S:g} s at most; choose them with --clip"
            raise UsageError(f"{source.name}: too long for a picture", longest)
    return Audio(source.name, np.concatenate(blocks), source.sample_rate_hz)


def hear(recognizer: "Recognizer", audio: Audio, transcript: Transcript) -> list[Heard]:
    """Ask the CTC branch once more, for the posteriors of each segment: a transcript holds none.

    Raises:
        ModelError: the model has no CTC branch.
    """
    heard = []
    for segment in transcript.segments:
        first = round((segment.start_s - transcript.start_s) * audio.sample_rate_hz)
        count = round(segment.duration_s * audio.sample_rate_hz)
        features = recognizer.features(audio.samples[first : first + count])
        [reading] = recognizer.read_ctc(recognizer.encode([features]))
        assert recognizer.loaded.ctc_vocabulary is not None  # else it has no reading
        heard.append(_posteriors(reading, recognizer.loaded.ctc_vocabulary, segment))
    return heard


def draw(audio: Audio, transcript: Transcript, heard: Sequence[Heard], path: Path) -> bool:
    """Draw what was heard and written.

    Args:
        audio: that was transcribed.
        transcript: with the times of its words.
        heard: of each of its segments.
        path: of the picture.

    Returns:
        Whether there was a font for every character.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    width = max(NARROWEST, INCHES_A_SECOND * audio.duration_s)
    with drawing() as warned:
        figure = Figure((width, HEIGHT), layout="constrained")
        wave, posteriors, words = figure.subplots(3, 1, sharex=True, height_ratios=(1.0, 1.3, 0.5))
        _draw_wave(wave, audio, transcript)
        for segment, one in zip(transcript.segments, heard, strict=True):
            _draw_posteriors(posteriors, one, segment)
            _draw_words(words, segment, width / audio.duration_s)
        for axes in (wave, posteriors):
            _shade(axes, transcript)
        _label(wave, posteriors, words, transcript)
        save(figure, path, DPI)
    return not any(str(warning.message).startswith(MISSING_GLYPH) for warning in warned)


def _posteriors(reading: CTCReading, vocabulary: CTCVocabulary, segment: Segment) -> Heard:
    frame_ids = reading.frame_ids
    runs, frame = [], 0
    for label, run in groupby(frame_ids):
        length = len(list(run))
        runs += [(label, frame, frame + length)] if label != reading.blank_id else []
        frame += length
    log_probs = reading.log_probs([reading.blank_id, *(label for label, _, _ in runs)])  # (frames, 1 + labels)
    probabilities = np.exp(np.minimum(log_probs, 0))
    peaks = [
        first + int(probabilities[first:last, index].argmax()) for index, (_, first, last) in enumerate(runs, 1)
    ]
    return Heard(
        times_s=segment.start_s + FIRST_MIDDLE_S + reading.frame_duration_s * np.arange(len(frame_ids)),
        blank=probabilities[:, 0],
        labels=[vocabulary.decode([label]).strip() for label, _, _ in runs],
        peaks=np.array(peaks, int),
        probabilities=probabilities[:, 1:],
    )


def _draw_wave(axes: "Axes", audio: Audio, transcript: Transcript) -> None:
    times_s = transcript.start_s + np.arange(len(audio.samples)) / audio.sample_rate_hz
    axes.plot(times_s, audio.samples, color=GREY, linewidth=0.4, rasterized=True)
    highest = max(float(np.abs(audio.samples).max()), 1e-6) * 1.05
    axes.set_ylim(-highest, highest)


def _draw_posteriors(axes: "Axes", heard: Heard, segment: Segment) -> None:
    """A peak for each label, in the colour of the word in which it was heard."""
    axes.fill_between(heard.times_s, heard.blank, step="mid", color=FAINT, linewidth=0)
    for index, (label, peak) in enumerate(zip(heard.labels, heard.peaks, strict=True)):
        colour = _colour(segment.words, float(heard.times_s[peak]))
        # Where the same label is heard again, that is another peak.
        others = heard.peaks[[other == label for other in heard.labels]]
        near = np.abs(heard.peaks[index] - np.arange(len(heard.times_s)))
        own = near <= np.abs(others[:, None] - np.arange(len(heard.times_s))).min(axis=0)
        axes.fill_between(
            heard.times_s, np.where(own, heard.probabilities[:, index], 0), step="mid", color=colour, linewidth=0
        )
        height = 1.05 + 0.17 * (index % 2)  # neighbours are not to cover each other
        axes.text(heard.times_s[peak], height, label, color=colour, ha="center", fontsize=8)


def _draw_words(axes: "Axes", segment: Segment, inches_a_second: float) -> None:
    """A box for each word; a dashed one where the times are estimated."""
    for index, word in enumerate(segment.words):
        colour, duration_s = COLOURS[index % len(COLOURS)], word.end_s - word.start_s
        line, strength = ("dashed", 0.08) if word.estimated else ("solid", 0.3)
        axes.broken_barh(
            [(word.start_s, duration_s)],
            (0.02, 0.96),
            facecolor=(colour, strength),
            edgecolor=colour,
            linestyle=line,
            linewidth=0.8,
        )
        middle_s = (word.start_s + word.end_s) / 2
        fitting = inches_a_second * duration_s / COLUMN_INCHES / max(columns(word.text), 1)
        size = min(LARGEST, max(SMALLEST, fitting))
        score = "" if word.score is None else f"{word.score:.2f}"
        axes.text(middle_s, 0.62, word.text, clip_on=True, ha="center", va="center", fontsize=size)
        axes.text(middle_s, 0.2, score, clip_on=True, color=GREY, ha="center", va="center", fontsize=6)


def _shade(axes: "Axes", transcript: Transcript) -> None:
    """The words' times behind a panel."""
    for segment in transcript.segments:
        for index, word in enumerate(segment.words):
            colour = COLOURS[index % len(COLOURS)]
            axes.axvspan(word.start_s, word.end_s, color=colour, alpha=0.08, linewidth=0)


def _label(wave: "Axes", posteriors: "Axes", words: "Axes", transcript: Transcript) -> None:
    wave.set_title(f"{Path(transcript.source).name}, {transcript.model}", fontsize="small", loc="left")
    wave.set_ylabel("waveform", fontsize="small")
    posteriors.set_ylabel("CTC posteriors", fontsize="small")
    posteriors.set_ylim(0, 1.4)
    posteriors.set_yticks([0, 0.5, 1])
    words.set_ylabel("words", fontsize="small")
    words.set_ylim(0, 1)
    words.set_xlabel("seconds", fontsize="small")
    words.set_xlim(transcript.start_s, transcript.start_s + transcript.duration_s)
    for axes in (wave, words):
        axes.set_yticks([])
    for axes in (wave, posteriors, words):
        axes.tick_params(labelsize="x-small")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def _colour(words: Sequence[Word], time_s: float) -> str:
    """That of the word which is said then; grey between words."""
    said = (index for index, word in enumerate(words) if word.start_s <= time_s <= word.end_s)
    index = next(said, None)
    return GREY if index is None else COLOURS[index % len(COLOURS)]
