"""What must not happen to someone who builds on the package: aborts, silent garbage, one failure for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.running import invoke
from typer.testing import CliRunner

import funasr_cli
from funasr_cli.backend import mx
from funasr_cli.cli.app import app
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.errors import UsageError
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.stages import Encoded


@pytest.mark.parametrize("dtype", ["float16", "int32", "bogus"])
def test_types_that_cannot_hold_the_model(small_model: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match=f"cannot compute in '{dtype}'"):
        funasr_cli.load(str(small_model), dtype)


def test_stored_float16_is_not_computed_with(model: Path) -> None:
    """It cannot hold this model's values; mlx-audio stores it all the same."""
    weights = dict(mx.load(str(model / "model.safetensors")))
    name = "audio_encoder.after_norm.weight"
    mx.save_safetensors(str(model / "model.safetensors"), weights | {name: weights[name].astype(mx.float16)})
    loaded = funasr_cli.load(str(model), "stored").loaded.model
    assert loaded.audio_encoder.after_norm.weight.dtype == mx.bfloat16


@pytest.mark.parametrize("temperature", [1e-38, 1e-30, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    """Dividing by it must not push several logits to infinity, where the first would win."""
    logits = mx.array(np.random.default_rng(0).normal(0, 20, (4, 50)).astype(np.float32))
    sampled = make_sampler(TranscribeOptions(temperature=temperature))(logits, [0, 1, 1, 7])
    assert sampled.tolist() == mx.argmax(logits, axis=-1).tolist()


OUT_OF_MEMORY = "[metal::malloc] out of memory"
GIVEN_UP = f"the computation failed ({OUT_OF_MEMORY})\n  a smaller --max-segment needs less memory\n"


def give_up_on_short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder fails on every batch with half a second in it."""
    original = Recognizer.encode

    def encode(self: Recognizer, features: list[np.ndarray]) -> Encoded:
        if min(map(len, features)) < 15:
            raise RuntimeError(OUT_OF_MEMORY)
        return original(self, features)

    monkeypatch.setattr(Recognizer, "encode", encode)


@pytest.mark.slow
def test_a_device_that_gives_up_is_asked_for_less_at_once(
    stopping_model: Path, short_wav: Path, zh_wav: Path, en_flac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them was too much shows when each is tried by itself."""
    recognizer = funasr_cli.load(str(stopping_model))
    texts = [recognizer.transcribe(clip, vad=False).text for clip in (zh_wav, en_flac)]
    give_up_on_short_clips(monkeypatch)
    monkeypatch.setattr("funasr_cli.scheduling.scheduler.GATHER_S", 60.0)  # so that nothing depends on the time
    clips = (short_wav, zh_wav, en_flac, en_flac)
    result = invoke("transcribe", "-m", stopping_model, *clips, "--no-vad", "--batch-size", 2)
    assert result.exit_code == 1
    assert result.stdout == f"{zh_wav}: {texts[0]}\n" + f"{en_flac}: {texts[1]}\n" * 2
    assert result.stderr == (
        f"error[computation-failed]: {short_wav}: {GIVEN_UP}"
        "1 of 4 inputs failed; 100.0% of 0:28 speech transcribed, 0 segments repaired, 0 failed\n"
    )


@pytest.mark.slow
def test_no_fast_blas_is_said_once(
    stopping_model: Path, short_wav: Path, zh_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funasr_cli.backend.lacks_blas", lambda: True)
    monkeypatch.setattr("funasr_cli.device.lacks_blas", lambda: True)
    monkeypatch.setattr("funasr_cli.device.BLAS", None)
    for command in (
        ("transcribe", short_wav, zh_wav, "--max-tokens", 2),
        ("bench", "--rtf", short_wav, "--trials", 1),
    ):
        result = invoke(*command, "-m", stopping_model)
        assert result.stderr.count("warning: no fast BLAS found") == 1


def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from funasr_cli.cli import console

    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a\x1b[31mb\x9bc\td\n"  # a pipe gets what there is
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a[31mbc\td\n"


def test_existing_output_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fetching(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("funasr_cli.checkpoints.convert.fetch_source", no_fetching)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()
    result = CliRunner().invoke(app, ["convert", "owner/model", str(tmp_path / "out")])
    assert (result.exit_code, "exists already" in result.stderr) == (1, True)
    result = CliRunner().invoke(app, ["convert", "owner/model", "--languages", "zh,xx"])
    assert (result.exit_code, "unknown language 'xx'" in result.stderr) == (2, True)
