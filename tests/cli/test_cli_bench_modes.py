"""`funasr bench --batches`, `--memory` and `--profile`: what they measure, and what is refused."""

import json
from pathlib import Path

import pytest
import soundfile
from support.running import invoke
from test_cli_bench import measured

from funasr_cli.backend import on_accelerator
from funasr_cli.benchmarks.memory import run_memory
from funasr_cli.benchmarks.workloads import write_recording
from funasr_cli.demo import MODEL, clips
from funasr_cli.errors import FunASRError

LINEAR = "Linear" if on_accelerator() else "layers.CPULinear"


def test_batches_decode_the_same_exact_number_of_tokens(small_model: Path) -> None:
    options = ("--recordings", 5, "--trials", 2, "--exact-tokens", 3)
    data = measured("--batches", "-m", small_model, clips()[0].path, clips()[1].path, *options)
    cases = data["cases"]
    assert [case["batch_size"] for case in cases] == [1, 4, 16]
    for case in cases:
        assert case["case"] == f"Small-Nano, 5 recordings, batch of {case['batch_size']}"
        assert case["recordings"] == case["segments"] == 5
        assert case["tokens"] == 5 * 3, "a segment each, whatever the model would rather write"
        assert case["same_texts"] == 5
        assert case["audio_s"] == pytest.approx(cases[0]["audio_s"])
        seconds, first = case["stages"]["total_s"]["median"], cases[0]["stages"]["total_s"]["median"]
        assert case["times_faster"] == pytest.approx(first / seconds)


def test_table_of_batches(small_model: Path, short_wav: Path) -> None:
    options = ("--recordings", 2, "--trials", 1, "--batch-sizes", "1,2", "--exact-tokens", 2)
    result = invoke("bench", "--batches", "-m", small_model, short_wav, *options)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == "case seconds spread audio s/s tok/s times faster same texts"
    assert lines[2].startswith("2 recordings, batch of 1 ")
    assert lines[2].endswith(" 1.00 2")
    assert lines[3].startswith("2 recordings, batch of 2 ")
    assert "2 recordings, 1 s of audio, 4 tokens; medians of 1 after a warm-up, in turns." in lines
    assert "Exactly 2 tokens for each segment: texts mean nothing." in lines


def test_memory_of_recordings_of_given_lengths() -> None:
    said: list[str] = []
    costs = run_memory({"demo": MODEL}, [clip.path for clip in clips()], (5.0, 90.0), "auto", 4, said.append)
    assert [(cost.case, cost.audio_s) for cost in costs] == [("demo, 5 s", 5.0), ("demo, 1.5 min", 90.0)]
    assert all(50e6 < cost.peak_bytes < 4e9 for cost in costs)
    assert said == [
        "writing 5 s", "transcribing 5 s: demo", "writing 1.5 min", "transcribing 1.5 min: demo",
    ]  # fmt: skip


def test_memory_of_the_command(small_model: Path) -> None:
    options = ("--durations", "3,6", "--max-tokens", 2)
    data = measured("--memory", "-m", small_model, "--synthetic", "demo", *options)
    assert data["models"] == []
    assert [case["case"] for case in data["cases"]] == [
        f"{model}, {length}" for length in ("3 s", "6 s") for model in ("Small-Nano", "synthetic demo")
    ]
    assert all(case["peak_bytes"] > 50e6 < case["wall_s"] * 1e12 for case in data["cases"])
    table = invoke("bench", "--memory", "-m", small_model, "--durations", "3", "--max-tokens", 2).stdout
    assert "Small-Nano, 3 s" in table
    assert "Each in a process of its own: most memory resident, and the whole command's time.\n" in table


def test_memory_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FunASRError, match=r"funasr transcribe ended with 3: error: .*no such model"):
        run_memory({"none": tmp_path / "none"}, [clips()[0].path], (1.0,), "auto", None, lambda _: None)


def test_recordings_are_as_long_as_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", [clip.path for clip in clips()[:2]], 12.5)
    samples, rate_hz = soundfile.read(tmp_path / "a.flac")
    assert len(samples) == 12.5 * rate_hz


def test_profile_counts_the_same_every_time(small_model: Path, short_wav: Path) -> None:
    options = (
        "--profile",
        "-m",
        small_model,
        short_wav,
        "--trials",
        1,
        "--batch-sizes",
        "1,2",
        "--exact-tokens",
        5,
    )
    runs = [measured(*options)["cases"] for _ in range(2)]
    counts = [
        [[(stage["operations"], stage["kinds"]) for stage in case["stages"]] for case in cases] for cases in runs
    ]
    assert counts[0] == counts[1]
    one, two = runs[0]
    assert (one["case"], two["case"]) == (
        "Small-Nano, short.wav, batch of 1", "Small-Nano, short.wav, batch of 2",
    )  # fmt: skip
    for case in (one, two):
        rows, (*_, step) = case["batch_size"], case["stages"]
        assert [stage["stage"] for stage in case["stages"]] == ["features", "encoder", "prefill", "decode"]
        assert case["steps"] == 5
        assert case["operations_per_token"] == step["operations"] / rows
        assert case["computing_per_token"] == step["computing"] / rows
        assert case["evaluations_per_token"] == step["evaluations"] / rows
        for stage in case["stages"]:
            assert 0 < stage["computing"] < stage["operations"] == sum(stage["kinds"].values())
            assert stage["evaluations"] >= 1
            assert all(seconds >= 0 for seconds in stage["modules"].values())
    assert {LINEAR, "RMSNorm", "qwen3.Attention", "outside of modules"} <= one["stages"][3]["modules"].keys()
    assert not {"sanm.SANMLayer", "adaptor.Attention"} & one["stages"][3]["modules"].keys()
    assert "sanm.FSMNBlock" in one["stages"][1]["modules"]


def test_table_of_a_profile(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--profile", "-m", small_model, short_wav, "--trials", 1, "--exact-tokens", 2)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == "short.wav, batch of 1 seconds spread operations computing evaluations"
    assert [line.split(" 0.")[0] for line in lines[2:6]] == ["features", "encoder", "prefill", "decode, one step"]
    assert any(line.startswith("For each further token: ") for line in lines)
    assert "short.wav, batch of 1 features % encoder % prefill % decode %" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "--exact-tokens", "4"), "error: --exact-tokens with --memory\n  it has no effect there\n"),
        (("--memory", "--trials", "2"), "error: --trials with --memory\n"),
        (("--memory", "--refs", "a"), "error: --refs with --memory\n"),
        (("--batches", "--durations", "4"), "error: --durations with --batches\n"),
        (("--batches", "--exact-tokens", "0"), "error: exact tokens is 0\n  it must be at least 1\n"),
        (("--batches", "--recordings", "0"), "--recordings"),
        (("--drafts", "--durations", "4"), "error: --durations with --drafts\n  it has no effect there\n"),
        (("--drafts", "--draft", "off"), "error: --draft with --drafts\n  it has no effect there\n"),
        (("--memory", "--draft", "off"), "error: --draft with --memory\n"),
        (("--profile", "--draft", "auto"), "error: --draft with --profile\n"),
        (("--profile", "--recordings", "2"), "error: --recordings with --profile\n"),
        (("--profile", "--max-tokens", "2"), "error: --max-tokens with --profile\n"),
    ],
)
def test_usage_errors(options: tuple[str, ...], message: str) -> None:
    invoke("bench", *options, "-m", "nowhere").assert_fails(2, message)


def test_a_limit_from_a_variable_waits_for_a_mode_that_has_it(small_model: Path, short_wav: Path) -> None:
    arguments = ("--profile", "-m", small_model, short_wav, "--trials", 1, "--exact-tokens", 1, "--json")
    result = invoke("bench", *arguments, env={"FUNASR_MAX_TOKENS": "7"})
    assert json.loads(result.stdout)["settings"]["max_tokens"] is None
