"""What must not happen to someone who builds on the package: aborts, silent garbage, one failure for all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import environment
from small import MakeCheckpoint, edit_json
from typer.testing import CliRunner

import funasr_cli
from funasr_cli.audio.decode import Audio, load_audio
from funasr_cli.backend import mx
from funasr_cli.cli.app import app
from funasr_cli.decoding.generate import make_sampler
from funasr_cli.errors import AudioError, ModelError, UsageError
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import LONGEST_CLIP_S, Recognizer
from funasr_cli.transcript import Transcript

IN_A_THREAD = """
import sys, threading
import funasr_cli
recognizer = funasr_cli.load(sys.argv[1])
texts = []
run = lambda: texts.append(funasr_cli.transcribe(sys.argv[2], recognizer, max_tokens=4).text)
run()
for _ in range(2):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
assert texts[0] and texts == [texts[0]] * 3, texts
"""


def test_transcribing_in_a_thread_does_not_abort_the_process(small_model: Path, short_wav: Path) -> None:
    """Servers and windows do that; MLX's per-thread streams must not outlive their thread."""
    command = [sys.executable, "-c", IN_A_THREAD, str(small_model), str(short_wav)]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("dtype", ["float16", "int32", "bogus"])
def test_types_that_cannot_hold_the_model(small_model: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match=f"cannot compute in '{dtype}'"):
        funasr_cli.load(str(small_model), dtype)


def test_stored_float16_is_refused(model: Path) -> None:
    """Also when the file itself claims nothing about it."""
    weights = dict(mx.load(str(model / "model.safetensors")))
    name = "audio_encoder.after_norm.weight"
    mx.save_safetensors(str(model / "model.safetensors"), weights | {name: weights[name].astype(mx.float16)})
    with pytest.raises(ModelError, match=name):
        funasr_cli.load(str(model), "stored")


@pytest.mark.parametrize("temperature", [1e-38, 1e-30, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    """Dividing by it must not push several logits to infinity, where the first would win."""
    logits = mx.array(np.random.default_rng(0).normal(0, 20, (4, 50)).astype(np.float32))
    sampled = make_sampler(TranscribeOptions(temperature=temperature))(logits)
    assert sampled.tolist() == mx.argmax(logits, axis=-1).tolist()


def test_no_clips_no_transcripts(small_model: Path) -> None:
    assert funasr_cli.load(str(small_model)).transcribe_batch([]) == []


def test_clips_too_long_for_one_piece(small_model: Path) -> None:
    recognizer = funasr_cli.load(str(small_model))
    samples = np.zeros(int((LONGEST_CLIP_S + 1) * recognizer.sample_rate_hz), dtype=np.float32)
    with pytest.raises(AudioError, match="more than is decoded in one piece"):
        recognizer.transcribe(Audio("long.wav", samples, recognizer.sample_rate_hz))


def test_a_device_that_gives_up_fails_one_input_only(
    stopping_model: Path, short_wav: Path, zh_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Recognizer.transcribe

    def transcribe(self: Recognizer, clip: Audio, *rest: object) -> Transcript:
        if clip.name == str(short_wav):
            raise RuntimeError("[metal::malloc] out of memory")
        return original(self, clip, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Recognizer, "transcribe", transcribe)
    result = CliRunner().invoke(app, ["transcribe", "-m", str(stopping_model), str(short_wav), str(zh_wav)])
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{zh_wav}: ")
    assert f"{short_wav}: the computation failed ([metal::malloc] out of memory)" in result.stderr.replace(
        "\n", ""
    )


def test_a_decoder_that_breaks_down_is_a_failure(model: Path, zh_wav: Path) -> None:
    weights = dict(mx.load(str(model / "model.safetensors")))
    name = "llm.model.norm.weight"
    mx.save_safetensors(str(model / "model.safetensors"), weights | {name: weights[name] * float("nan")})
    result = CliRunner().invoke(app, ["transcribe", "-m", str(model), str(zh_wav)])
    assert result.exit_code == 1
    assert "not a number" in result.stderr


def test_no_fast_blas_is_said_once(
    stopping_model: Path, short_wav: Path, zh_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funasr_cli.backend.lacks_blas", lambda: True)
    result = CliRunner().invoke(app, ["transcribe", "-m", str(stopping_model), str(short_wav), str(zh_wav)])
    assert result.stderr.count("no fast BLAS found") == 1


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


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (None, {"frontend": "WavFrontendOnline"}, "frontend is 'WavFrontendOnline'"),
        ("llm_conf", {"use_lora": True}, "use_lora is True"),
        ("frontend_conf", {"n_mels": 3, "lfr_m": 1}, "rows of 3 values"),
        ("audio_adaptor_conf", {"downsample_rate": 9}, "stacks 9 frames"),
    ],
)
def test_variants_that_are_not_supported(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, section: str | None, change: dict[str, object], message: str
) -> None:
    import yaml

    folder = make_checkpoint()
    options = yaml.safe_load((folder / "config.yaml").read_text())
    (options[section] if section else options).update(change)
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(ModelError, match=message):
        funasr_cli.convert(str(folder), tmp_path / "out")


def test_key_value_heads_are_never_guessed(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    folder = make_checkpoint()
    edit_json(folder / "Qwen3-0.6B/config.json", lambda config: config.pop("num_key_value_heads"))
    with pytest.raises(ModelError, match="num_key_value_heads"):
        funasr_cli.convert(str(folder), tmp_path / "out")


def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from funasr_cli.cli import console

    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a\x1b[31mb\x9bc\td\n"  # a pipe gets what there is
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a[31mbc\td\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_no_room_on_stdout(stopping_model: Path, short_wav: Path) -> None:
    command = [sys.executable, "-m", "funasr_cli", "transcribe", "-m", str(stopping_model), str(short_wav)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard output: cannot be written (")


def test_one_clip_at_another_rate_is_named(small_model: Path, zh_wav: Path) -> None:
    with pytest.raises(AudioError, match="8000 Hz, the model wants 16000"):
        funasr_cli.load(str(small_model)).transcribe(load_audio(zh_wav, 8000))
