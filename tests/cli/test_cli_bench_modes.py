"""`funasr bench --batches` and `--memory`: what they measure, and what is refused."""

import json
from pathlib import Path

import pytest
import soundfile
from running import invoke

from funasr_cli.benchmarks.memory import run_memory, write_recording
from funasr_cli.demo import MODEL, clips
from funasr_cli.errors import FunASRError


def test_batches_decode_the_same_exact_number_of_tokens(small_model: Path, short_wav: Path) -> None:
    options = ("--recordings", 5, "--trials", 2, "--exact-tokens", 3, "--json")
    result = invoke("bench", "--batches", "-m", small_model, clips()[0].path, clips()[1].path, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    costs = json.loads(result.stdout)
    assert [cost["batch_size"] for cost in costs] == [1, 4, 16]
    for cost in costs:
        assert cost["tokens"] == 5 * 3, "a segment each, whatever the model would rather write"
        assert cost["same_texts"] == 5
        assert cost["audio_s"] == pytest.approx(costs[0]["audio_s"])
        assert cost["times_faster"] == pytest.approx(costs[0]["wall_s"]["median"] / cost["wall_s"]["median"])
    table = invoke("bench", "--batches", "-m", small_model, short_wav, "--recordings", 1, "--trials", 1)
    for heading in ("batch", "seconds", "tok/s", "times faster", "same texts"):
        assert heading in table.stdout


def test_memory_of_recordings_of_given_lengths() -> None:
    said: list[str] = []
    costs = run_memory(MODEL, [clip.path for clip in clips()], (5.0, 20.0), "auto", 4, said.append)
    assert [cost.duration_s for cost in costs] == [5.0, 20.0]
    assert all(50e6 < cost.peak_bytes < 4e9 for cost in costs)
    assert any("transcribing" in text for text in said)


def test_memory_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FunASRError, match=r"funasr transcribe ended with 3: error: .*no such model"):
        run_memory(tmp_path / "none", [clips()[0].path], (1.0,), "auto", None, lambda _: None)


def test_recordings_are_as_long_as_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", [clip.path for clip in clips()[:2]], 12.5)
    samples, rate_hz = soundfile.read(tmp_path / "a.flac")
    assert len(samples) == 12.5 * rate_hz


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "error: say what to measure\n  one of --rtf, --batches and --memory\n"),
        (("--rtf", "--memory"), "error: say what to measure\n"),
        (("--memory", "--exact-tokens", "4"), "error: --exact-tokens with --memory\n"),
        (("--batches", "--exact-tokens", "0"), "error: exact tokens is 0\n  it must be at least 1\n"),
        (("--batches", "--recordings", "0"), "--recordings"),
    ],
)
def test_usage_errors(options: tuple[str, ...], message: str) -> None:
    invoke("bench", *options, "-m", "nowhere").assert_fails(2, message)
