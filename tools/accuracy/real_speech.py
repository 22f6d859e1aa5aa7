"""Measure a model on recorded speech with known texts: phrase by phrase, and in recordings of 16 minutes.

    python -m tools.accuracy.real_speech --model FOLDER --state FOLDER [--out docs/reports/real-speech.md]

Needs `make real-data`. Every finished run is saved in the state folder, so an interrupted evaluation continues,
and the page shows all runs that were ever saved there. Its section "What was learned" is written by hand and kept.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile

import funasr_cli
from funasr_cli.audio.decode import AudioInput
from funasr_cli.audio.recording import open_recording
from funasr_cli.benchmarks.scoring import ErrorRate
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling import segments
from tools.accuracy.long import setting
from tools.accuracy.texts import text_rates
from tools.accuracy.truth import TruePhrase, compare, quantiles_ms, read_truth
from tools.real_data.cache import LONG, SPEECH, root

CHUNK = 64  # phrases between two savings
LANGUAGES = ("en", "es", "fr")
RECORDINGS = ("as-recorded", "wide", "noisy")  # the same 16 minutes of English
TAIL_S = 0.3  # kept after the last phrase


@dataclass(frozen=True)
class Phrase:
    """A recording of a phrase, with its text."""

    path: Path
    text: str
    language: str
    duration_s: float


def read_phrases(language: str, every: int = 1) -> list[Phrase]:
    """Return each `every`-th phrase of a language in the cache of `make real-data`."""
    folder = root() / SPEECH / language
    rows = map(json.loads, (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines())
    phrases = [Phrase(folder / row["file"], row["text"], language, row["duration_s"]) for row in rows]
    return phrases[::every]


def transcribe_alone(
    recognizer: Recognizer, clips: Sequence[AudioInput], rate_hz: int | None = None, **options: Any
) -> list[str]:
    """Return the text of each clip, decoded as one segment without voice activity detection."""
    sources: list[AudioInput] = [
        open_recording(clip, recognizer.sample_rate_hz) if isinstance(clip, Path) else clip for clip in clips
    ]
    done = recognizer.transcribe_batch(sources, sample_rate_hz=rate_hz, vad=False, **options)
    return [transcript.text for transcript in done]


def read_long(name: str, minutes: float | None = None) -> tuple[np.ndarray, int, list[TruePhrase]]:
    """Return the samples (samples,), sample rate and phrases of a long recording, or of its first minutes."""
    path = root() / LONG / f"{name}.wav"
    samples, rate_hz = soundfile.read(path, dtype="float32")
    phrases = [phrase for phrase in read_truth(path) if minutes is None or phrase.span_s[1] <= 60 * minutes]
    end_s = phrases[-1].span_s[1] + TAIL_S
    return samples[: round(end_s * rate_hz)], rate_hz, phrases


class Evaluation:
    """Runs of one model, each saved as a file in a folder and reused."""

    def __init__(self, recognizer: Recognizer, state: Path):
        self._recognizer, self._state = recognizer, state
        state.mkdir(parents=True, exist_ok=True)

    def results(self) -> list[dict[str, Any]]:
        """Return all runs that were ever saved in the folder."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self._state.glob("*.json"))]

    def phrases(
        self, name: str, language: str, options: dict[str, Any], every: int = 1, minutes: float | None = None
    ) -> dict[str, Any]:
        """Transcribe phrases alone: those of a language, or those of a long recording."""
        key = f"phrases, {name}, {_written(options)}, every {every}, minutes {minutes}, {self._engine}"
        run = self._saved(key) or {"kind": "phrases", "of": name, "language": language, "engine": self._engine}
        if "errors" in run:
            return run
        clips: Sequence[AudioInput]
        rate_hz: int | None = None
        if name in RECORDINGS:
            samples, rate_hz, truth = read_long(name, minutes)
            spans = [[round(time_s * rate_hz) for time_s in phrase.span_s] for phrase in truth[::every]]
            clips = [samples[start:end] for start, end in spans]
            wanted = [phrase.text for phrase in truth[::every]]
            audio_s = sum(end - start for start, end in spans) / rate_hz
        else:
            phrases = read_phrases(language, every)
            clips, wanted = [phrase.path for phrase in phrases], [phrase.text for phrase in phrases]
            audio_s = sum(phrase.duration_s for phrase in phrases)
        begun: dict[str, Any] = {"options": options, "audio_s": audio_s, "cpu_s": 0.0, "texts": []}
        run = begun | run
        while (done := len(run["texts"])) < len(clips):
            started_s = time.process_time()
            chunk = clips[done : done + CHUNK]
            run["texts"] += transcribe_alone(self._recognizer, chunk, rate_hz, language=language, **options)
            run["cpu_s"] += time.process_time() - started_s
            self._save(key, run)
        pairs = list(zip(wanted, run["texts"], strict=True))
        words, characters = text_rates(pairs, language)
        right = sum(text_rates([pair], language)[0].edits == 0 for pair in pairs)
        run |= {"errors": asdict(words), "characters": asdict(characters), "right": right}
        self._save(key, run)
        return run

    def long(self, name: str, options: dict[str, Any], minutes: float | None = None) -> dict[str, Any]:
        """Transcribe a long recording, or its first minutes, and compare it with the truth."""
        key = f"long, {name}, {_written(options)}, minutes {minutes}, {self._engine}"
        run = self._saved(key)
        if not run:
            samples, rate_hz, truth = read_long(name, minutes)
            constants = {name: value for name, value in options.items() if name.isupper()}
            fields = {name: value for name, value in options.items() if not name.isupper()}
            with ExitStack() as stack:
                for constant, value in constants.items():
                    stack.enter_context(patch.object(segments, constant, value))
                started_s = time.process_time()
                transcript = self._recognizer.transcribe(samples, sample_rate_hz=rate_hz, language="en", **fields)
                cpu_s = time.process_time() - started_s
            found = compare(transcript, truth, "en")
            text = [[s.start_s, s.end_s, s.text] for s in transcript.segments]
            run = {"kind": "long", "of": name, "options": options, "audio_s": transcript.duration_s}
            run |= {"cpu_s": cpu_s, "engine": self._engine, "found": asdict(found), "text": text}
            self._save(key, run)
        return run

    @property
    def _engine(self) -> str:
        return self._recognizer.model.engine

    def _path(self, key: str) -> Path:
        return self._state / (re.sub(r"[^\w.=-]+", "_", key) + ".json")

    def _saved(self, key: str) -> dict[str, Any]:
        path = self._path(key)
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return saved

    def _save(self, key: str, run: dict[str, Any]) -> None:
        unfinished = self._path(key).with_suffix(".unfinished")
        unfinished.write_text(json.dumps(run, ensure_ascii=False, indent=1), encoding="utf-8")
        unfinished.replace(self._path(key))


def _written(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "default"


LEARNED = "\n## What was learned\n"
HEAD = """# Accuracy on recorded speech

`make real-data` [fetches](../../tools/real_data/README.md) what this page needs: OpenAI's Whisper base, and
recorded phrases with their texts. Texts are compared after Whisper's own normalisation (PyPI
`whisper-normalizer`). Written by `python -m tools.accuracy.real_speech`.

"""
PHRASES_HEAD = """## Phrase by phrase

Accents do not count in Spanish and French, since many reference texts lack them. Each phrase is one segment,
without voice activity detection. "Right" counts the phrases without any error. The rows `as-recorded`, `wide` and
`noisy` are the English prompts as they are in the long recordings.

"""
LONG_HEAD = """## Long recordings

The 294 English prompts in one recording of 16.5 minutes, with pauses of 0.3, 0.8 and 1.6 s in turns, which their
own silence makes longer: at 8 kHz (`as-recorded`), at 16 kHz (`wide`), and at 16 kHz and 10 dB SNR (`noisy`).

- at edges: deleted words where a segment begins or ends.
- precision: share of the segments that is sound; recall: share of the phrases' sound that is in a segment.
- ledger: its seconds of speech relative to the phrases' sound, and how much its sum differs from the recording.
- word starts, word ends: error at the first and last word of each phrase, in ms: median / 95 % of them within. The
  sound of a phrase begins and ends where its level is 40 dB below its maximum. Only with word times.
- cues: subtitles in SRT; "in place" is the share of the correct words that are shown within 0.3 s of their phrase,
  and "starts" the error of cues that begin with a phrase, in ms: median / 95 %.
- CPU s/min: seconds of CPU time for a minute of audio, which depend little on what else the machine does.

"""


def page(results: Iterable[dict[str, Any]]) -> str:
    """Return the report on all finished runs."""
    runs = [run for run in results if run["kind"] == "long" or "errors" in run]
    phrases = _table(
        ("phrases", "options", "number", "minutes", "word errors, %", "deleted, %", "character errors, %", "right",
         "CPU s/min"),
        (_phrases_row(run) for run in runs if run["kind"] == "phrases"),
    )  # fmt: skip
    long = _table(
        ("recording", "options", "word errors, %", "deleted, %", "at edges", "segments, mean s",
         "precision / recall", "missed", "ledger, difference s", "word starts", "word ends",
         "cues, in place, starts",
         "CPU s/min"),
        (_long_row(run) for run in runs if run["kind"] == "long"),
    )  # fmt: skip
    return HEAD + PHRASES_HEAD + phrases + "\n" + LONG_HEAD + long


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rates(rate: ErrorRate) -> Iterator[str]:
    yield f"{rate.percent:.2f} ({rate.edits} of {rate.total})"
    yield f"{100 * rate.deletions / max(1, rate.total):.2f}"


def _options(run: dict[str, Any]) -> str:
    return f"{run.get('engine', '-')}: `{_written(run['options'])}`"


def _cpu(run: dict[str, Any]) -> str:
    return f"{run['cpu_s'] / (run['audio_s'] / 60):.1f}" if "cpu_s" in run else "-"


def _phrases_row(run: dict[str, Any]) -> list[str]:
    characters = ErrorRate(**run["characters"])
    return [
        run["of"], _options(run), str(len(run["texts"])), f"{run['audio_s'] / 60:.1f}",
        *_rates(ErrorRate(**run["errors"])), f"{characters.percent:.2f}", str(run["right"]),
        _cpu(run),
    ]  # fmt: skip


def _long_row(run: dict[str, Any]) -> list[str]:
    found = run["found"]
    cover = found["coverage"]
    return [
        f"{run['of']}, {run['audio_s'] / 60:.1f} min", _options(run),
        *_rates(ErrorRate(**found["errors"])), str(found["edge_deletions"]),
        f"{found['segments']}, {found['mean_segment_s']:.1f}",
        f"{100 * cover['precision']:.1f} / {100 * cover['recall']:.1f}", str(cover["missed"]),
        f"{found['speech_share']:.2f}, {found['unaccounted_s']:.3f}",
        quantiles_ms(found["word_starts_s"]), quantiles_ms(found["word_ends_s"]),
        f"{found['cues']}, {100 * found['cue_words_in_place']:.1f} %, {quantiles_ms(found['cue_starts_s'])}",
        _cpu(run),
    ]  # fmt: skip


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.accuracy.real_speech", description=__doc__)
    parser.add_argument("--model", required=True, help="name or folder of the model")
    parser.add_argument("--state", type=Path, required=True, help="folder for the results")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--phrases", nargs="*", choices=(*LANGUAGES, *RECORDINGS), default=[], help="alone")
    parser.add_argument("--recordings", nargs="*", choices=RECORDINGS, default=[], help="long ones")
    parser.add_argument("--every", type=int, default=1, help="only each phrase of this number, for a quick look")
    parser.add_argument("--minutes", type=float, help="only the first minutes of the long recordings")
    parser.add_argument("--set", dest="settings", type=setting, action="append", default=[], metavar="NAME=VALUE",
                        help="a field of TranscribeOptions, such as batch_size=1, or a constant of "
                        "scheduling/segments.py, such as MARGIN_S=0.3")  # fmt: skip
    parser.add_argument("--dtype", help="number type; default: as `funasr transcribe`")
    parser.add_argument("--engine", help="what computes the model; default: as `funasr transcribe`")
    return parser.parse_args()


def main() -> None:
    """Measure what is asked for and not measured yet, and write the page."""
    arguments = parse()
    options = dict(arguments.settings)
    TranscribeOptions(
        **{name: value for name, value in options.items() if not name.isupper()}
    )  # before a long run
    loading = {name: value for name in ("dtype", "engine") if (value := getattr(arguments, name))}
    evaluation = Evaluation(funasr_cli.load(arguments.model, **loading), arguments.state)
    for name in arguments.phrases:
        run = evaluation.phrases(
            name, "en" if name in RECORDINGS else name, options, arguments.every, arguments.minutes
        )
        print(*_phrases_row(run), sep=" | ", flush=True)
    for name in arguments.recordings:
        print(*_long_row(evaluation.long(name, options, arguments.minutes)), sep=" | ", flush=True)
    if arguments.out:
        earlier = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else ""
        _, mark, learned = earlier.partition(LEARNED)
        arguments.out.write_text(page(evaluation.results()) + mark + learned, encoding="utf-8")


if __name__ == "__main__":
    main()
