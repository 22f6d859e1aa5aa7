"""FSMN-VAD compared with FunASR's: features, network and rules, whole and in pieces."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity.live import run_reference
from support.segmenting import flickering, fsmn_segments
from support.small import once

from funasr_cli.audio import fsmn_vad
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.fsmn_rules import FsmnRules
from funasr_cli.audio.fsmn_vad import FsmnVoiceActivityDetector
from funasr_cli.options import FSMN, FSMN_DYNAMIC, VAD_THRESHOLDS, TranscribeOptions
from funasr_cli.scheduling.segments import new_segmenter

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "support/parity/record_vad.py"
TOLERANCE = 1e-5  # measured: 2e-6
SHOWS = 1e-3
PIECE = 3200  # 200 ms
CLIPS = ("zh", "en")
SCHEDULED = {"look_up_frames": 6000, "held_frames": 4}  # as FunASR looks the schedule up in a whole recording
FUNASR_LONGEST_MS = 60_000
STATIC = {"dynamic_silence": False, "max_end_silence_time": 800}  # FunASR keeps a value that it was given
RULES: dict[str, dict[str, Any]] = {
    "static": STATIC,
    "dynamic": {},
    "static in pieces": {"piece_ms": 200, **STATIC},
    "dynamic in pieces": {"piece_ms": 200},
    "dynamic frame by frame": {"piece_ms": 10},
    "static, 300 ms": {"max_end_silence_time": 300},
}


@dataclass(frozen=True)
class Recorded:
    """What FunASR found."""

    samples: dict[str, np.ndarray]  # by recording: (samples,)
    silence: dict[str, np.ndarray]  # by recording: (frames,) the network's probability of silence
    segments: dict[str, list[list[int]]]  # by recording and rules, [start, end] in ms
    scripts: list[dict[str, Any]]  # made-up probabilities, and options
    ours: dict[str, np.ndarray]  # by recording: (frames,) our probabilities of speech, in pieces of 200 ms


def make_scripts(count: int) -> list[dict[str, Any]]:
    """Return probabilities with options. Every twentieth is long enough for the schedule."""
    rng, scripts = random.Random(7), []
    for number in range(count):
        scheduled = number % 20 == 19
        speech = flickering(rng, rng.choice((6500, 13_000) if scheduled else (50, 300, 1500)))
        scripts.append({
            "silence": [1 - probability for probability in speech],
            "threshold": rng.choice((0.5, 0.6, 0.8)),
            "pause_ms": rng.choice((100, 150, 200, 300, 500, 800, 2000)),
            "longest_ms": rng.choice((2000, 15_000, FUNASR_LONGEST_MS)),
            "options": {} if scheduled else {"dynamic_silence": False},
        })  # fmt: skip
    return scripts


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path) -> Recorded:
    """Both clips, both in turns for more than two minutes, and 200 scripts."""
    zh, en = (load_audio(path, 16000).samples for path in (zh_wav, en_flac))
    samples = {"zh": zh, "en": en, "turns": np.tile(np.concatenate([zh, en]), 8)}
    scripts = make_scripts(200)

    def make(folder: Path) -> None:
        folder.mkdir()
        np.savez(folder / "samples.npz", **samples)
        job = {"rules": RULES, "short": ["zh"], "scripts": scripts}
        (folder / "job.json").write_text(json.dumps(job))
        run_reference(SCRIPT, fsmn_vad.WEIGHTS_FILE, folder / "samples.npz", folder / "job.json", folder)

    folder = once(tmp_path_factory, "fsmn-vad", make)
    segments = json.loads((folder / "segments.json").read_text())
    ours = {name: in_pieces(FsmnVoiceActivityDetector(), each) for name, each in samples.items()}
    return Recorded(samples, dict(np.load(folder / "silence.npz")), segments, scripts, ours)


def in_pieces(detector: FsmnVoiceActivityDetector, samples: np.ndarray) -> np.ndarray:
    """Return the speech probabilities (frames,) of a recording that arrives in pieces of 200 ms."""
    parts = [detector(samples[start : start + PIECE]) for start in range(0, len(samples), PIECE)]
    return np.concatenate([*parts, detector.finish()])


def difference(silence: np.ndarray, speech: np.ndarray) -> float:
    """Return the largest difference between FunASR's probabilities and ours."""
    return float(np.abs(1 - speech - silence).max())


@pytest.mark.parametrize("name", [*CLIPS, "turns"])
def test_the_same_probabilities(recorded: Recorded, name: str) -> None:
    assert difference(recorded.silence[name], recorded.ours[name]) <= TOLERANCE


def with_weights(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        changed = {name: change(name, tensor) for name, tensor in fsmn_vad._weights().items()}
        patch.setattr(fsmn_vad, "_weights", lambda: changed)

    return mutate


def forgetting(patch: pytest.MonkeyPatch) -> None:
    run = FsmnVoiceActivityDetector._run

    def forget(self: FsmnVoiceActivityDetector, rows: np.ndarray) -> np.ndarray:
        self._past = FsmnVoiceActivityDetector()._past
        return run(self, rows)

    patch.setattr(FsmnVoiceActivityDetector, "_run", forget)


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "taps from the newest": with_weights(lambda name, x: x[:, :, ::-1] if "conv_left" in name else x),
    "no state": forgetting,
    "float16": with_weights(lambda _, x: x.astype(np.float16).astype(np.float32)),
    "no shift": with_weights(lambda name, x: 0 * x if name == "cmvn.shift" else x),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_shows(mutation: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[mutation](monkeypatch)
    changed = in_pieces(FsmnVoiceActivityDetector(), recorded.samples["zh"])
    assert difference(recorded.silence["zh"], changed) > SHOWS


@pytest.mark.parametrize(
    ("rules", "names", "pause_ms", "look_up"),
    [
        ("static", (*CLIPS, "turns"), 800, {}),
        ("static, 300 ms", (*CLIPS, "turns"), 300, {}),
        ("static in pieces", ("zh",), 800, {}),
        ("dynamic", (*CLIPS, "turns"), None, SCHEDULED),
        ("dynamic in pieces", ("zh",), None, {"look_up_frames": 20, "held_frames": 4}),
        ("dynamic frame by frame", ("zh",), None, {}),
    ],
)
def test_the_same_segments(
    recorded: Recorded, rules: str, names: tuple[str, ...], pause_ms: float | None, look_up: dict[str, int]
) -> None:
    threshold = VAD_THRESHOLDS[FSMN_DYNAMIC if pause_ms is None else FSMN]
    for name in names:
        ours = FsmnRules(threshold, pause_ms, longest_ms=FUNASR_LONGEST_MS, **look_up)
        assert fsmn_segments(ours, recorded.ours[name]) == recorded.segments[f"{name}, {rules}"]
    assert len(recorded.segments[f"{names[-1]}, {rules}"]) > 1 - (rules.startswith("dynamic"))


def test_the_same_segments_from_made_up_probabilities(recorded: Recorded) -> None:
    lengths = set()
    for number, case in enumerate(recorded.scripts):
        scheduled = not case["options"]
        threshold = VAD_THRESHOLDS[FSMN_DYNAMIC] if scheduled else (1 + case["threshold"]) / 2
        rules = FsmnRules(
            threshold,
            None if scheduled else case["pause_ms"],
            longest_ms=case["longest_ms"],
            **(SCHEDULED if scheduled else {}),
        )
        found = fsmn_segments(rules, [1 - silence for silence in case["silence"]])
        assert found == recorded.segments[f"script {number}"], number
        lengths |= {end - start for start, end in found}
    assert len(lengths) > 100


@pytest.mark.parametrize("piece", [PIECE, 10**7])
@pytest.mark.parametrize("name", [*CLIPS, "turns"])
def test_audio_segments_are_those_of_funasr(recorded: Recorded, name: str, piece: int) -> None:
    """But the last one ends with the recording, up to 25 ms later, if speech does not end before."""
    samples = recorded.samples[name]
    segmenter = new_segmenter(TranscribeOptions(vad_model=FSMN, max_segment_s=FUNASR_LONGEST_MS / 1000))
    blocks = [samples[start : start + piece] for start in range(0, len(samples), piece)]
    found = [segment for block in blocks for segment in segmenter.push(block)] + segmenter.finish()
    expected = [(16 * start, 16 * end) for start, end in recorded.segments[f"{name}, static"]]
    if expected[-1][1] == 160 * len(recorded.silence[name]):
        expected[-1] = (expected[-1][0], len(samples))
    assert [(segment.start, segment.end) for segment in found] == expected
