"""Draw an alignment: waveform, mel spectrogram, CTC posteriors, and the words at their times."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from funasr_cli.audio.decode import Audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.characters import columns
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.words import FIRST_MIDDLE_S
from funasr_cli.errors import SetupError
from funasr_cli.extras import to_add
from funasr_cli.features.fbank import LOW_FREQUENCY_HZ, MIN_SAMPLES, Frontend, FrontendConfig
from funasr_cli.pictures import drawing, save
from funasr_cli.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ReadCTC = Callable[[np.ndarray], CTCReading]  # from the (samples,) of a segment to its CTC output
LONGEST_S = 60.0  # more does not fit on a page
LONGEST_ROW_S = 10.0
INCHES_PER_S, NARROWEST, ROW_HEIGHT, DPI = 2.2, 7.0, 5.6, 130
PANEL_HEIGHTS = (0.7, 1.1, 1.3, 0.5)  # relative heights within a row
NAMES, TICKS = ("waveform", "mel, Hz", "CTC posteriors", "words"), ((), (500, 2000), (0, 0.5, 1), ())
SPECTROGRAM = FrontendConfig(SAMPLE_RATE_HZ, "hamming", 80, 25.0, 10.0, stack_frames=1, stack_step=1)
DEEPEST = 12.0  # dynamic range of the spectrogram below its loudest cell, in natural logarithms (52 dB)
COLOURS = ("#1f77b4", "#d9730d", "#2a8f3c", "#b3365b", "#6f52a3")  # colours of words, repeated
GREY, FAINT = "#707070", "#e4e4e4"
COLUMN_INCHES = 0.0095  # width of a text column for each point of font size
LARGEST, SMALLEST = 10.0, 4.5  # font sizes in points
MISSING_GLYPH = "Glyph"  # start of matplotlib's warning about a character that no font has


class Heard(NamedTuple):
    """Output of the CTC branch for a segment."""

    times_s: np.ndarray  # (frames,) the middle of each frame
    blank: np.ndarray  # (frames,) probability of the blank
    # Labels of the best path: text, frame with the highest probability, (frames,) probability in every frame.
    labels: list[tuple[str, int, np.ndarray]]


class Row(NamedTuple):
    """A part of the recording in four panels, as in `NAMES`."""

    start_s: float
    end_s: float  # infinite for the last row, since a frame's middle may come after the last sample
    wave: "Axes"
    spectrogram: "Axes"
    posteriors: "Axes"
    words: "Axes"

    def holds(self, time_s: float) -> bool:
        """Return whether a time falls into this row."""
        return self.start_s <= time_s < self.end_s

    def shows(self, word: Word) -> bool:
        """Return whether a word overlaps this row. An estimated word may have no duration."""
        return self.holds(word.start_s) or word.start_s < self.start_s < word.end_s


def require_librosa() -> None:
    """Raise a SetupError if librosa, which draws the spectrograms, is missing."""
    try:
        import librosa.display  # noqa: F401
    except ImportError as error:
        message = f"drawing spectrograms needs librosa ({error})"
        raise SetupError(message, to_add("plot"), code="package-missing") from error


def draw(read_ctc: ReadCTC, audio: Audio, transcript: Transcript, path: Path, *, replace: bool = False) -> bool:
    """Draw a transcript with word times in rows of equal duration.

    Args:
        read_ctc: the CTC branch that the word times come from.
        audio: the transcribed audio.
        transcript: the audio's transcript, with word times.
        path: the picture to write.
        replace: overwrite an existing file.

    Returns:
        Whether a font was found for every character.

    Raises:
        ModelError: the model has no CTC output.
        OutputError: the file exists and ``replace`` is false, or it cannot be written.
    """
    from matplotlib.figure import Figure

    heard = [_hear(read_ctc, audio, transcript, segment) for segment in transcript.segments]
    count = ceil(audio.duration_s / LONGEST_ROW_S)
    row_s = audio.duration_s / count
    width = max(NARROWEST, INCHES_PER_S * row_s)
    with drawing() as warned:
        figure = Figure((width, ROW_HEIGHT * count), layout="constrained")
        for row in _rows(figure, count, transcript):
            _draw_wave(row, audio, transcript)
            _draw_spectrogram(row, audio, transcript)
            for segment, one in zip(transcript.segments, heard, strict=True):
                _draw_posteriors(row, one, segment)
                _draw_words(row, segment, width / row_s)
            _label(row)
        title = f"{Path(transcript.source).name}, {transcript.model}"
        figure.axes[0].set_title(title, fontsize="small", loc="left")
        save(figure, path, DPI, replace=replace)
    return not any(str(warning.message).startswith(MISSING_GLYPH) for warning in warned)


def _rows(figure: "Figure", count: int, transcript: Transcript) -> list[Row]:
    """Create the panels of ``count`` rows of equal duration and width."""
    each = len(PANEL_HEIGHTS)
    panels = figure.subplots(each * count, 1, height_ratios=PANEL_HEIGHTS * count).reshape(count, each)
    borders_s = np.linspace(transcript.start_s, transcript.start_s + transcript.duration_s, count + 1).tolist()
    for (*others, words), limits_s in zip(panels, pairwise(borders_s), strict=True):
        words.set_xlim(limits_s)
        for axes in others:
            axes.sharex(words)
            axes.tick_params(labelbottom=False)
    spans_s = pairwise([*borders_s[:-1], inf])
    return [Row(*span_s, *axes) for span_s, axes in zip(spans_s, panels, strict=True)]


def _hear(read_ctc: ReadCTC, audio: Audio, transcript: Transcript, segment: Segment) -> Heard:
    """Run the CTC branch on a segment again to get its posteriors, which a transcript does not store."""
    first = round((segment.start_s - transcript.start_s) * audio.sample_rate_hz)
    samples = audio.samples[first : first + round(segment.duration_s * audio.sample_rate_hz)]
    reading = read_ctc(samples)
    ids = np.array(reading.frame_ids)
    borders = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]  # runs of the same label
    runs = [run for run in pairwise(borders) if ids[run[0]] != reading.blank_id]
    log_probs = reading.log_probs([reading.blank_id, *(int(ids[first]) for first, _ in runs)])
    blank, *likely = np.exp(np.minimum(log_probs, 0)).T  # (frames,) each
    labels = [
        (reading.vocabulary.decode([int(ids[first])]).strip(), first + int(own[first:last].argmax()), own)
        for (first, last), own in zip(runs, likely, strict=True)
    ]
    times_s = segment.start_s + FIRST_MIDDLE_S + reading.frame_duration_s * np.arange(len(ids))
    return Heard(times_s, blank, labels)


def _draw_wave(row: Row, audio: Audio, transcript: Transcript) -> None:
    times_s = transcript.start_s + np.arange(len(audio.samples)) / audio.sample_rate_hz
    row.wave.plot(times_s, audio.samples, color=GREY, linewidth=0.4, rasterized=True)
    highest = max(float(np.abs(audio.samples).max()), 1e-6) * 1.05
    row.wave.set_ylim(-highest, highest)


def _draw_spectrogram(row: Row, audio: Audio, transcript: Transcript) -> None:
    """Draw the mel filter bank energies that the models' features are computed from."""
    from librosa.display import specshow

    config, samples = SPECTROGRAM, audio.samples
    if len(samples) < MIN_SAMPLES:
        return
    energies = np.array(Frontend(config).filter_bank(samples))  # (frames, mel bins), natural logarithms
    centre_s = min(config.frame_length_ms / 1000, audio.duration_s) / 2
    times_s = transcript.start_s + centre_s + np.arange(len(energies)) * config.frame_shift_ms / 1000
    first, end = np.searchsorted(times_s, (row.start_s, row.end_s)).tolist()
    within = slice(max(first - 1, 0), end + 1)  # include the neighbours, which may extend into the row
    loudest = max(float(energies.max()), 0.0)  # digital silence must not look loud
    if first < end:
        specshow(
            energies[within].T, x_coords=times_s[within], x_axis="s", y_axis="mel", sr=config.sample_rate_hz,
            htk=True, fmin=LOW_FREQUENCY_HZ, fmax=config.sample_rate_hz / 2, vmin=loudest - DEEPEST, vmax=loudest,
            cmap="Greys", ax=row.spectrogram,
        )  # fmt: skip


def _draw_posteriors(row: Row, heard: Heard, segment: Segment) -> None:
    """Draw a peak for each label in the colour of its word. The row clips the peaks."""
    axes, times_s = row.posteriors, heard.times_s
    axes.fill_between(times_s, heard.blank, step="mid", color=FAINT, linewidth=0)
    peaks = [0, *(peak for _, peak, _ in heard.labels), len(times_s) - 1]
    for index, (label, peak, likely) in enumerate(heard.labels):
        colour = _colour(segment.words, float(times_s[peak]))
        around = slice(peaks[index], peaks[index + 2] + 1)  # the same label may occur again elsewhere
        axes.fill_between(times_s[around], likely[around], step="mid", color=colour, linewidth=0)
        height = 1.05 + 0.17 * (index % 2)  # alternate, so that neighbours do not overlap
        if row.holds(times_s[peak]):
            axes.text(times_s[peak], height, label, color=colour, ha="center", fontsize=8)


def _draw_words(row: Row, segment: Segment, inches_per_s: float) -> None:
    """Draw a box for each word, dashed if its times are estimated, and shade the panels above it.

    The row clips both.
    """
    axes = row.words
    for index, word in enumerate(segment.words):
        if not row.shows(word):
            continue
        colour, duration_s = COLOURS[index % len(COLOURS)], word.end_s - word.start_s
        line, strength = ("dashed", 0.08) if word.estimated else ("solid", 0.3)
        axes.broken_barh(
            [(word.start_s, duration_s)], (0.02, 0.96), facecolor=(colour, strength), edgecolor=colour,
            linestyle=line, linewidth=0.8,
        )  # fmt: skip
        for above in (row.wave, row.spectrogram, row.posteriors):
            above.axvspan(word.start_s, word.end_s, color=colour, alpha=0.08, linewidth=0)
        middle_s = (word.start_s + word.end_s) / 2
        fitting = inches_per_s * duration_s / COLUMN_INCHES / max(columns(word.text), 1)
        size = min(LARGEST, max(SMALLEST, fitting))
        score = "" if word.score is None else f"{word.score:.2f}"
        axes.text(middle_s, 0.62, word.text, clip_on=True, ha="center", va="center", fontsize=size)
        axes.text(middle_s, 0.2, score, clip_on=True, color=GREY, ha="center", va="center", fontsize=6)


def _label(row: Row) -> None:
    for axes, name, ticks in zip(row[2:], NAMES, TICKS, strict=True):
        axes.set_ylabel(name, fontsize="small")
        axes.set_xlabel("seconds" if axes is row.words else "", fontsize="small")
        axes.set_yticks(ticks)
        axes.tick_params(labelsize="x-small")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    row.spectrogram.minorticks_off()
    row.posteriors.set_ylim(0, 1.4)
    row.words.set_ylim(0, 1)


def _colour(words: Sequence[Word], time_s: float) -> str:
    """Return the colour of the word spoken at a time, or grey between words."""
    spoken = (index for index, word in enumerate(words) if word.start_s <= time_s <= word.end_s)
    return next((COLOURS[index % len(COLOURS)] for index in spoken), GREY)
