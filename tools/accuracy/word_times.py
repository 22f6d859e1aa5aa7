"""How far word starts are off those that the synthesiser reports, as a table in `docs/reports/word-times.md`."""

from __future__ import annotations

import argparse
import difflib
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

import funasr_cli
from funasr_cli.audio.recording import open_recording
from funasr_cli.benchmarks.scoring import units
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Segment, Word
from tools.accuracy.decoding import BATCH, Clip, read_clips
from tools.accuracy.joined import JoinedRecording, join_clips, shared_s
from tools.accuracy.long import as_line

JOINED_CLIPS = 200
SNRS_DB = {"clean": None, "20 dB SNR": 20.0, "10 dB SNR": 10.0}
COLUMNS = (
    "clips",
    "words",
    "median error, ms",
    "95 % within, ms",
    "bias, ms",
    "longest error, ms",
    "not compared",
)
HEAD = """# How well word times fit

Starts of words as the demo model gives them, against those that espeak-ng reports for the words that it speaks:
held-out voices and sentences, absolute error. The bias is the median of given less right starts: positive is
late. A word is compared if the model wrote what was said and the synthesiser reports its start; "not compared"
are words that the model wrote otherwise. In Mandarin the synthesiser reports words of its dictionary, mostly
single characters: of longer ones only the first character is compared. "Joined": 200 of the clips in one
recording, with pauses of 0.3 to 3 s and noise throughout. No constant is set by these clips. Words were in
order, without overlaps, within their segments, and spelled the text in every segment. Written by `make eval`.

The decoder's text is force-aligned with the posteriors of the CTC branch, a frame every 60 ms, as that branch
itself spells what both agree on. CTC says a word near its middle: on training clips the first frame of a word,
which FunASR gives as its start, is 0.11 s late in the median. The border between two words divides the time
between their frames by the words' lengths; next to a pause a word reaches 0.25 s beyond its frames at most. The
long errors are words that the CTC branch says too early, before they are heard, where it knows what follows
(`excuse me where is`), and words that the decoder got wrong.

"""
ESTIMATED = """
## Numbers as digits

With inverse text normalisation, as it is by default. A number in digits is not what the CTC branch heard: its
times are marked as estimated, and compared with the start of the first word that is said for it. The further
words of numbers are not compared.

"""
SENSE_VOICE = """
## SenseVoice beside FunASR

FunASR times SenseVoice's text with `output_timestamp=True`. On a checkpoint that is taught its sentences, the
frames of each piece are the same here (`tests/parity/test_sense_voice_parity.py`). What differs:

- FunASR encodes the text anew, piece by piece, and aligns what comes out. Where that is not what the model said,
  its times shift, and a text with fewer than four tags loses words. Here the model's own pieces are aligned.
- FunASR's word begins 30 ms before the start of its first frame, and ends 30 ms before the end of its last one.
  Here the time between the frames of two words is divided, as above, and a word may reach into a pause.
- In a frame that most likely says nothing, FunASR takes the probability of that as 1; here it is what it is.
- FunASR lists punctuation as words; here it stands at its word. A space by itself ends a word here, there it does
  not, and there the first word keeps the sign for the space in front of it.
"""


@dataclass
class Errors:
    """How late words begin, in seconds, and how many could not be compared.

    Attributes:
        measured: of words that have times of their own.
        estimated: of words that have not.
        unmatched: words of the truth that nothing was compared with.
    """

    measured: list[float] = field(default_factory=list)
    estimated: list[float] = field(default_factory=list)
    unmatched: int = 0

    def add(self, clip: Clip, words: Sequence[Word], offset_s: float = 0.0) -> None:
        """Compare the words of a clip that begins at `offset_s`."""
        starts_s = dict(clip.word_starts_s)
        said = spoken_units(clip)
        written = [" ".join(units(word.text)) for word in words]
        compared = 0
        matcher = difflib.SequenceMatcher(None, [text for text, _ in said], written, autojunk=False)
        for kind, first, last, start, end in matcher.get_opcodes():
            pairs = [*zip(said[first:last], words[start:end], strict=True)] if kind == "equal" else []
            if kind == "replace" and words[start].estimated:
                pairs = [(said[first], words[start])]
            for (_, position), word in pairs:
                if position in starts_s:
                    errors = self.estimated if word.estimated else self.measured
                    errors.append(word.start_s - offset_s - starts_s[position])
                    compared += 1
        self.unmatched += len(starts_s) - compared


def spoken_units(clip: Clip) -> list[tuple[str, int]]:
    """Words or characters that are said, with their positions in the text."""
    unit = r"\S" if clip.language == "zh" else r"\S+"
    return [(found[0], found.start()) for found in re.finditer(unit, clip.spoken)]


def check(segment: Segment) -> None:
    """Words spell the text, in order, without overlaps, within the segment."""
    assert segment.words or not segment.text, segment
    times_s = [segment.start_s, *(t for word in segment.words for t in (word.start_s, word.end_s)), segment.end_s]
    assert all(before <= behind for before, behind in pairwise(times_s)), segment
    rest = segment.text
    for word in segment.words:
        rest = rest.lstrip()
        assert rest.startswith(word.text), segment
        rest = rest.removeprefix(word.text)
    assert not rest, segment
    for word in segment.words:
        assert word.estimated == (word.score is None), segment
        assert word.score is None or 0 <= word.score <= 1, segment


def of_clips(recognizer: Recognizer, clips: Sequence[Clip], itn: bool) -> dict[str, Errors]:
    """Errors by language, of clips one by one."""
    options = TranscribeOptions(itn=itn, word_times=True, vad=False, batch_size=BATCH)
    sources = [open_recording(clip.path, recognizer.sample_rate_hz) for clip in clips]
    errors = {"en": Errors(), "zh": Errors()}
    for clip, transcript in zip(clips, recognizer.transcribe_batch(sources, options), strict=True):
        for segment in transcript.segments:
            check(segment)
        errors[clip.language].add(clip, words_of(transcript.segments))
    return errors


def of_joined(recognizer: Recognizer, recording: JoinedRecording, itn: bool) -> dict[str, Errors]:
    """Errors by language, of clips that are one recording; a segment belongs to the clip it shares most with."""
    options = TranscribeOptions(itn=itn, word_times=True)
    segments = recognizer.transcribe(recording.path, options).segments
    for segment in segments:
        check(segment)
    spans_s = [(segment.start_s, segment.end_s) for segment in segments]
    owners = shared_s(spans_s, recording.spans).argmax(axis=1)  # (segments,)
    errors = {"en": Errors(), "zh": Errors()}
    for index, (clip, (start_s, _)) in enumerate(zip(recording.clips, recording.spans, strict=True)):
        own = [segment for segment, owner in zip(segments, owners, strict=True) if owner == index]
        errors[clip.language].add(clip, words_of(own), start_s)
    return errors


def words_of(segments: Iterable[Segment]) -> list[Word]:
    """Words of all segments."""
    return [word for segment in segments for word in segment.words]


def line(name: str, errors: Errors, *, estimated: bool = False) -> str:
    """A line of the table."""
    late_ms = 1000 * np.array(errors.estimated if estimated else errors.measured)
    median, most, longest = np.quantile(np.abs(late_ms), [0.5, 0.95, 1.0])
    figures = (median, most, np.median(late_ms), longest)
    return as_line([name, str(len(late_ms)), *(f"{figure:.0f}" for figure in figures), str(errors.unmatched)])


def lines(name: str, errors: dict[str, Errors], *, estimated: bool = False) -> list[str]:
    """Of both languages."""
    names = {"en": "English", "zh": "Mandarin"}
    return [line(f"{name}, {names[language]}", own, estimated=estimated) for language, own in errors.items()]


def tables(recognizer: Recognizer, folders: Sequence[Path], work: Path) -> list[str]:
    """All lines of the page."""
    table = [as_line(COLUMNS), "|" + "---|" * len(COLUMNS)]
    page, digits = list(table), list(table)
    for folder in folders:
        clips = read_clips(folder)
        page += lines(folder.name, of_clips(recognizer, clips, itn=False))
        written = of_clips(recognizer, clips, itn=True)
        digits += lines(f"{folder.name}, words", written)
        digits += lines(f"{folder.name}, estimated", written, estimated=True)
        print("\n".join(page), flush=True)
    clean = read_clips(folders[0])[:JOINED_CLIPS]
    for name, snr_db in SNRS_DB.items():
        recording = join_clips(clean, work / f"{name}.flac", None, snr_db)
        page += lines(f"joined, {name}", of_joined(recognizer, recording, itn=False))
        print("\n".join(page[-2:]), flush=True)
    return [*page, *ESTIMATED.splitlines(), *digits]


def main() -> None:
    """Decode, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="folders with clips.jsonl, the first one clean")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        page = tables(funasr_cli.load("demo"), arguments.clips, Path(temporary))
    arguments.out.write_text(HEAD + "\n".join(page) + "\n" + SENSE_VOICE, encoding="utf-8")
    print("\n".join(page))


if __name__ == "__main__":
    main()
