"""Compare word starts with those that the synthesiser reports, for `docs/reports/word-times.md`."""

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
HEAD = """# Accuracy of word times

How far the word starts of the demo model are from those that the synthesiser (espeak-ng) reports, on held-out
voices and sentences. No constant was tuned on these clips.

- Errors are absolute. The bias is the median of the signed error; positive means late.
- A word is compared if the model wrote it correctly and the synthesiser reports its start. "Not compared"
  counts the words that the model wrote differently.
- In Mandarin the synthesiser reports dictionary words, mostly single characters. Of longer words only the first
  character is compared.
- "Joined" is one recording of 200 clips with pauses of 0.3 to 3 s; noise continues during the pauses.

In every segment, the words were in order, did not overlap, were within the segment, and spelled its text.
Written by `make eval`.

How the times are computed: the decoder's text is force-aligned with the posteriors of the CTC branch, which has
one frame per 60 ms. Where the texts of decoder and CTC branch agree, the spelling of the CTC branch is aligned.
CTC places a word near its middle: on training clips, the first frame of a word, which FunASR reports as its
start, is 0.11 s late (median). The time between the frames of two words is therefore divided in proportion to
the lengths of the words; next to a pause, a word extends at most 0.25 s beyond its frames. The longest errors
are words that the CTC branch predicts before they are spoken (`excuse me where is`), and words that the decoder
got wrong.

"""
ESTIMATED = """
## Numbers as digits

With inverse text normalisation, which is the default. The CTC branch writes words where the text has digits, so
the time of such a number is marked as estimated. It is compared with the start of the first word of the number;
the other words of the number are not compared.

"""
SENSE_VOICE = """
## SenseVoice compared with FunASR

FunASR reports times for SenseVoice's text with `output_timestamp=True`. On a checkpoint that was trained on the
test sentences, both programs assign the same frames to each token (`tests/parity/test_sense_voice_parity.py`).
The differences are:

- FunASR splits the text into tokens again and aligns these. Where they differ from the tokens that the model
  wrote, the times shift, and a text with fewer than four tags loses words. This program aligns the tokens that
  the model wrote.
- In FunASR, a word begins 30 ms before the start of its first frame and ends 30 ms before the end of its last
  one. Here, the time between the frames of two words is divided as above, and a word may extend into a pause.
- In a frame that is most likely blank, FunASR sets the probability of blank to 1. This program uses the actual
  probability.
- FunASR lists punctuation marks as words; here they belong to their word. A space ends a word here, but not in
  FunASR, where the first word also keeps the marker of the space before it.
"""


@dataclass
class Errors:
    """Errors of word starts in seconds, positive for late ones, and the number of words that were not compared.

    Attributes:
        measured: errors of words with aligned times.
        estimated: errors of words with estimated times.
        unmatched: number of reference words without a counterpart.
    """

    measured: list[float] = field(default_factory=list)
    estimated: list[float] = field(default_factory=list)
    unmatched: int = 0

    def add(self, clip: Clip, words: Sequence[Word], offset_s: float = 0.0) -> None:
        """Add the errors of a clip that begins at `offset_s`."""
        starts_s = dict(clip.word_starts_s)
        spoken = spoken_units(clip)
        written = [" ".join(units(word.text)) for word in words]
        compared = 0
        matcher = difflib.SequenceMatcher(None, [text for text, _ in spoken], written, autojunk=False)
        for kind, first, last, start, end in matcher.get_opcodes():
            pairs = [*zip(spoken[first:last], words[start:end], strict=True)] if kind == "equal" else []
            if kind == "replace" and words[start].estimated:
                pairs = [(spoken[first], words[start])]
            for (_, position), word in pairs:
                if position in starts_s:
                    errors = self.estimated if word.estimated else self.measured
                    errors.append(word.start_s - offset_s - starts_s[position])
                    compared += 1
        self.unmatched += len(starts_s) - compared


def spoken_units(clip: Clip) -> list[tuple[str, int]]:
    """Return the spoken words or characters, with their positions in the text."""
    unit = r"\S" if clip.language == "zh" else r"\S+"
    return [(found[0], found.start()) for found in re.finditer(unit, clip.spoken)]


def check(segment: Segment) -> None:
    """Assert that words spell the text, in order, without overlaps, within the segment."""
    assert segment.words or not segment.text, segment
    times_s = [segment.start_s, *(t for word in segment.words for t in (word.start_s, word.end_s)), segment.end_s]
    assert all(earlier <= later for earlier, later in pairwise(times_s)), segment
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
    """Return the errors by language for clips that are decoded separately."""
    options = TranscribeOptions(itn=itn, word_times=True, vad=False, batch_size=BATCH)
    sources = [open_recording(clip.path, recognizer.sample_rate_hz) for clip in clips]
    errors = {"en": Errors(), "zh": Errors()}
    for clip, transcript in zip(clips, recognizer.transcribe_batch(sources, options), strict=True):
        for segment in transcript.segments:
            check(segment)
        errors[clip.language].add(clip, words_of(transcript.segments))
    return errors


def of_joined(recognizer: Recognizer, recording: JoinedRecording, itn: bool) -> dict[str, Errors]:
    """Return the errors by language for a joined recording, taking a segment for the clip it overlaps most."""
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
    """Return the words of all segments."""
    return [word for segment in segments for word in segment.words]


def line(name: str, errors: Errors, *, estimated: bool = False) -> str:
    """Return a line of the table."""
    late_ms = 1000 * np.array(errors.estimated if estimated else errors.measured)
    median, most, longest = np.quantile(np.abs(late_ms), [0.5, 0.95, 1.0])
    figures = (median, most, np.median(late_ms), longest)
    return as_line([name, str(len(late_ms)), *(f"{figure:.0f}" for figure in figures), str(errors.unmatched)])


def lines(name: str, errors: dict[str, Errors], *, estimated: bool = False) -> list[str]:
    """Return the lines for both languages."""
    names = {"en": "English", "zh": "Mandarin"}
    return [line(f"{name}, {names[language]}", own, estimated=estimated) for language, own in errors.items()]


def tables(recognizer: Recognizer, folders: Sequence[Path], work: Path) -> list[str]:
    """Return all tables of the page, as lines."""
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
    """Decode the clips, print the tables, and write the page."""
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
