"""Compare error rates on long recordings, made of held-out clips and pauses, with those of the separate clips."""

from __future__ import annotations

import argparse
import ast
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import funasr_cli
from funasr_cli.benchmarks.scoring import error_rate
from funasr_cli.errors import AudioError
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Transcript
from tools.accuracy.decoding import Clip, read_clips
from tools.accuracy.joined import JoinedRecording, coverage, cut_clips, join_clips

LANGUAGES = {"en": "en", "zh": "zh", "mixed": None}  # of the clips; language passed to the model
SNRS_DB = {"clean": None, "20": 20.0, "10": 10.0}
PARTS = ("clips", "joined", "whole")
COLUMNS = (
    "recording",
    "clips, minutes",
    "clip by clip",
    "clip by clip, language auto",
    "joined, with VAD",
    "joined, without VAD",
    "precision / recall",
    "clips split",
    "clips missed",
    "segments joined",
)
HEAD = """# Accuracy on long recordings

Error rates of the demo model in percent, over the text of the whole recording. Each recording joins held-out
clips in random order, with pauses of 0.3 to 3 s. Noise continues during the pauses and changes every 30 s.

- clip by clip: the same samples, cut into the original clips and decoded separately.
- mixed: both languages; decoded without naming the language, except in the column "clip by clip", which names
  the language of each clip.
- precision: share of the segments' duration that is speech. recall: share of the speech that is within a
  segment.

Written by `python -m tools.accuracy.long`{settings}.

"""


@dataclass(frozen=True)
class Evaluation:
    """The recordings' columns to measure, and the options for decoding.

    Attributes:
        parts: which of `PARTS` to decode.
        settings: fields of `TranscribeOptions` for the joined recording.
        itn: whether numbers are written as digits.
    """

    recognizer: Recognizer
    parts: tuple[str, ...]
    settings: dict[str, Any]
    itn: bool

    def percent(self, clips: list[Clip], text: str) -> str:
        """Return the error rate of a text that should be the one of all clips."""
        wanted = " ".join(clip.wanted(self.itn) for clip in clips)
        return f"{error_rate([(wanted, text)]).percent:.2f}"

    def transcribe(self, path: Path, language: str | None, **options: Any) -> Transcript:
        """Transcribe a file."""
        return self.recognizer.transcribe(path, language=language, itn=self.itn, **options)

    def clip_by_clip(self, clips: list[Clip], languages: list[str | None]) -> str:
        """Return the error rate of clips that are decoded separately."""
        pairs = zip(clips, languages, strict=True)
        texts = [self.transcribe(clip.path, language, vad=False).text for clip, language in pairs]
        return self.percent(clips, " ".join(texts))

    def without_vad(self, recording: JoinedRecording, language: str | None) -> str:
        """Return the error rate of a recording that is decoded without VAD."""
        try:
            text = self.transcribe(recording.path, language, vad=False).text
        except AudioError:
            return "refused"
        return self.percent(recording.clips, text)

    def row(self, name: str, recording: JoinedRecording, language: str | None, folder: Path) -> str:
        """Return a line of the table."""
        cells = dict.fromkeys(COLUMNS, "") | {"recording": name}
        cells["clips, minutes"] = f"{len(recording.clips)}, {recording.duration_s / 60:.1f}"
        if "clips" in self.parts:
            cut = cut_clips(recording, folder)
            cells["clip by clip"] = self.clip_by_clip(cut, [clip.language for clip in cut])
            cells["clip by clip, language auto"] = self.clip_by_clip(cut, [None] * len(cut))
        if "joined" in self.parts:
            transcript = self.transcribe(recording.path, language, **self.settings)
            found = coverage([(s.start_s, s.end_s) for s in transcript.segments], recording.speech)
            cells["joined, with VAD"] = self.percent(recording.clips, transcript.text)
            cells["precision / recall"] = f"{100 * found.precision:.1f} / {100 * found.recall:.1f}"
            cells["clips split"], cells["clips missed"] = str(found.split), str(found.missed)
            cells["segments joined"] = f"{found.joined} of {len(transcript.segments)}"
        if "whole" in self.parts:
            cells["joined, without VAD"] = self.without_vad(recording, language)
        return as_line(cells.values())


def as_line(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def setting(text: str) -> tuple[str, object]:
    """Parse `name=value`, where the value is a Python literal."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except SyntaxError as error:
        raise ValueError(text) from error


def table(evaluation: Evaluation, clips: list[Clip], arguments: argparse.Namespace, work: Path) -> Iterator[str]:
    """Yield the lines of the table as they become available."""
    yield as_line(COLUMNS)
    yield "|" + "---|" * len(COLUMNS)
    for condition in arguments.snr:
        for language in arguments.languages:
            name = f"{language}-{condition}"
            named = LANGUAGES[language]
            recording = join_clips(clips, work / f"{name}.flac", named, SNRS_DB[condition], arguments.seed)
            title = condition if condition == "clean" else f"{condition} dB"
            yield evaluation.row(f"{title}, {language}", recording, named, work / name)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of clean clips with clips.jsonl")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--set", dest="settings", type=setting, action="append", default=[], metavar="NAME=VALUE",
                        help="option for the joined recordings, such as max_segment_s=20")  # fmt: skip
    parser.add_argument("--itn", action="store_true", help="write numbers as digits")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="columns to fill")
    parser.add_argument("--snr", nargs="+", choices=SNRS_DB, default=list(SNRS_DB), help="noise, in dB")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--limit", type=int, help="number of clips to use, from the first one")
    parser.add_argument("--seed", type=int, default=1, help="seed for order, pauses and noise")
    parser.add_argument("--model", default="demo", help="name or folder of the model")
    parser.add_argument("--keep", type=Path, help="keep the recordings in this folder; default: delete them")
    arguments = parser.parse_args()
    own = {"itn", "language"} & dict(arguments.settings).keys()
    if own:
        parser.error(f"--set {own.pop()}: see --itn and --languages")
    return arguments


def main() -> None:
    """Decode the recordings, print the table, and write the page."""
    arguments = parse()
    settings = dict(arguments.settings)
    TranscribeOptions(**settings)  # refuse unknown names before the long run
    evaluation = Evaluation(funasr_cli.load(arguments.model), tuple(arguments.parts), settings, arguments.itn)
    clips = read_clips(arguments.clips)[: arguments.limit]
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for line in table(evaluation, clips, arguments, work):
            print(line, flush=True)
            lines.append(line)
    if arguments.out:
        given = "".join(f" --set {name}={value!r}" for name, value in settings.items())
        head = HEAD.format(settings=f" with `{given.strip()}`" if given else "")
        arguments.out.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
