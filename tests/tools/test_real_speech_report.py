"""An evaluation on recorded speech continues after an interruption, and its page shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.speaking import SpeakingModel

from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Segment
from tools.accuracy import real_speech
from tools.accuracy.real_speech import Evaluation, page
from tools.real_data.cache import LONG, SPEECH, VARIABLE

pytest.importorskip("whisper_normalizer", reason="`make install` adds whisper-normalizer")

TEXTS = ["Hello world.", "Goodbye.", "Hello."]


@pytest.fixture
def recognizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recognizer:
    """A model that always says "Hello world.", and a cache with three phrases of a second."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(real_speech, "CHUNK", 2)
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    rows = []
    folder, long = tmp_path / SPEECH / "en", tmp_path / LONG
    folder.mkdir(parents=True)
    long.mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        soundfile.write(folder / f"{number}.wav", noise, 16_000)
        rows.append({"file": f"{number}.wav", "text": text, "duration_s": 1.0})
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    soundfile.write(long / "wide.wav", np.tile(noise, 3), 16_000)
    true = [
        {"text": text, "start_s": n, "end_s": n + 1, "sound_start_s": n, "sound_end_s": n + 1}
        for n, text in enumerate(TEXTS)
    ]
    (long / "wide.jsonl").write_text("\n".join(map(json.dumps, true)), encoding="utf-8")
    return Recognizer(SpeakingModel(result=Segment(0, 1, "Hello world.", "", "eos", 0, 2, -0.1)))


def test_phrases_are_measured_once(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    transcribe_alone = real_speech.transcribe_alone

    def interrupted(recognizer: Recognizer, clips: Any, *arguments: Any, **options: Any) -> list[str]:
        asked.append(len(clips))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return transcribe_alone(recognizer, clips, *arguments, **options)

    monkeypatch.setattr(real_speech, "transcribe_alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Evaluation(recognizer, tmp_path / "state").phrases("en", "en", {})
    run = Evaluation(recognizer, tmp_path / "state").phrases("en", "en", {})
    assert asked == [2, 1, 1]
    assert Evaluation(recognizer, tmp_path / "state").phrases("en", "en", {}) == run
    assert asked == [2, 1, 1]
    errors = run["errors"]
    assert (errors["substitutions"], errors["deletions"], errors["insertions"], errors["total"]) == (1, 0, 2, 4)
    assert run["right"] == 1
    assert len(Evaluation(recognizer, tmp_path / "state").phrases("en", "en", {}, every=2)["texts"]) == 2


def test_each_engine_is_measured(recognizer: Recognizer, tmp_path: Path) -> None:
    """Runs of several number types and engines may share a folder."""
    evaluation = Evaluation(recognizer, tmp_path / "state")
    for engine in ("native int8", "native float32"):
        recognizer.model.engine = engine
        assert evaluation.phrases("en", "en", {})["engine"] == evaluation.long("wide", {})["engine"] == engine
    assert len(evaluation.results()) == 4
    assert page(evaluation.results()).count("native float32: `default`") == 2


def test_long_recordings_and_the_page(recognizer: Recognizer, tmp_path: Path) -> None:
    evaluation = Evaluation(recognizer, tmp_path / "state")
    run = evaluation.long("wide", {"vad": False})
    assert run["found"]["segments"] == 1
    assert run["found"]["errors"]["deletions"] == 2
    shorter = evaluation.long("wide", {"vad": False, "MARGIN_S": 0.3}, minutes=1 / 60)
    assert shorter["audio_s"] == pytest.approx(1 + real_speech.TAIL_S)
    assert shorter["found"]["errors"]["total"] == 2
    evaluation.phrases("wide", "en", {})
    text = page(evaluation.results())
    assert text.count("`vad=False`") == 1
    assert text.count("`vad=False, MARGIN_S=0.3`") == 1
    assert f"| wide | {recognizer.model.engine}: `default` | 3 |" in text
