"""`funasr bench --rtf`: the tables, the JSON, and what is refused."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.running import COMMAND, environment, funasr, invoke
from support.terminal import on_terminal, screen

from funasr_cli.demo import MODEL, clips

STAGES = {
    "read_s", "vad_s", "features_s", "encoder_s", "ctc_s", "prefill_s", "decode_s", "text_s", "first_token_s",
    "total_s",
}  # fmt: skip
CASE = {
    "case", "model", "audio", "recordings", "batch_size", "draft", "audio_s", "segments", "tokens", "passes",
    "drafted", "accepted", "stages", "tokens_per_s", "rtf", "peak_mlx_bytes", "peak_process_bytes", "errors",
    "texts",
}  # fmt: skip
QUICK = ("--max-tokens", "4")


def measured(*arguments: Any) -> dict[str, Any]:
    """What `--json` prints."""
    result = invoke("bench", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_json(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    result = funasr("bench", "--rtf", "-m", small_model, zh_wav, short_wav, "--trials", 3, "--json", *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads(result.stdout)
    assert {name: data[name] for name in ("format", "format_version", "mode")} == {
        "format": "funasr-bench", "format_version": 1, "mode": "rtf",
    }  # fmt: skip
    assert data["settings"] == {
        "language": "auto", "max_tokens": 4, "exact_tokens": None, "itn": True, "drafts": ["auto"],
        "device": None, "dtype": None, "trials": 3,
    }  # fmt: skip
    assert {"python", "funasr-cli", "mlx", "numpy"} <= data["versions"].keys()
    assert data["machine"].keys() == {"system", "processor", "cores", "memory_bytes", "gpu", "blas", "threads"}
    (model,) = data["models"]
    assert (model["model"], model["weights"]) == ("Small-Nano", "float32")
    assert 4 * model["parameters"] == pytest.approx(model["mlx_bytes"], rel=0.02)
    assert 0 < model["load_s"]["low"] <= model["load_s"]["high"]
    cases = data["cases"]
    assert [(case["case"], case["audio"], case["audio_s"]) for case in cases] == [
        ("Small-Nano, zh-6s.wav", str(zh_wav), 6.0),
        ("Small-Nano, short.wav", str(short_wav), 0.5),
    ]
    assert [(case["segments"], case["tokens"]) for case in cases] == [(2, 8), (1, 4)]
    for case in cases:
        check_case(case, trials=3)
        assert (case["passes"], case["drafted"], case["accepted"]) == (case["tokens"], 0, 0), "no CTC branch"
        assert case["stages"]["ctc_s"]["high"] == 0


def check_case(case: dict[str, Any], trials: int) -> None:
    """What holds on any machine, however fast: parts are no more than the whole, medians lie in their range."""
    assert case.keys() == CASE
    assert case["peak_mlx_bytes"] > 0
    assert case["peak_process_bytes"] > 10e6
    stages = case["stages"]
    assert stages.keys() == STAGES
    for spread in (*stages.values(), case["rtf"], case["tokens_per_s"]):
        assert 0 <= spread["low"] <= spread["median"] <= spread["high"]
        assert trials > 1 or spread["low"] == spread["high"]
    in_turn = ("features_s", "encoder_s", "text_s")  # the others run beside them
    assert sum(stages[part]["low"] for part in in_turn) <= stages["total_s"]["high"]
    assert 0 < stages["first_token_s"]["low"] <= stages["total_s"]["high"]
    for kind in ("low", "median", "high"):
        assert case["rtf"][kind] == pytest.approx(stages["total_s"][kind] / case["audio_s"])


def test_sums_of_a_single_trial(small_model: Path, short_wav: Path) -> None:
    (case,) = measured("--rtf", "-m", small_model, short_wav, "--trials", 1, *QUICK)["cases"]
    check_case(case, trials=1)
    parts = [case["stages"][part]["median"] for part in ("ctc_s", "prefill_s", "decode_s")]
    assert case["stages"]["text_s"]["median"] == pytest.approx(sum(parts))
    assert case["tokens_per_s"]["median"] == pytest.approx(3 / case["stages"]["decode_s"]["median"])


def test_every_combination_is_measured(small_model: Path, tmp_path: Path, short_wav: Path) -> None:
    """Models x durations x batch sizes; two models of one name are told apart by their folders."""
    other = shutil.copytree(small_model, tmp_path / "other")
    options = ("--durations", "1,2.5", "--batch-sizes", "1,2", "--trials", 1, "--exact-tokens", 2)
    data = measured("--rtf", "-m", small_model, "-m", other, short_wav, *options)
    names = [f"Small-Nano in {folder.name}" for folder in (small_model, other)]
    assert [model["model"] for model in data["models"]] == names
    assert [case["case"] for case in data["cases"]] == [
        f"{name}, joined {duration} s x 2, batch of {size}"
        for duration in ("1", "2.5") for size in (1, 2) for name in names
    ]  # fmt: skip
    for case in data["cases"]:
        assert case["recordings"] == 2, "as many as fill the largest batch"
        assert case["audio_s"] == 2 * float(case["audio"].split()[1])
        assert case["tokens"] == 2 * case["segments"]
        check_case(case, trials=1)


def test_memory_of_a_case_leaves_other_models_out(small_model: Path, short_wav: Path) -> None:
    """The demo model takes 14 MB, the small one half of one."""
    options = (short_wav, "--trials", 1, "--exact-tokens", 1)
    alone = measured("--rtf", "-m", small_model, *options)["cases"][0]["peak_mlx_bytes"]
    beside = measured("--rtf", "-m", small_model, "-m", MODEL, *options)["cases"]
    assert [case["model"] for case in beside] == ["Small-Nano", "demo"]
    assert beside[0]["peak_mlx_bytes"] == pytest.approx(alone, abs=2e6)
    assert beside[1]["peak_mlx_bytes"] > alone + 10e6


def test_table(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    result = funasr("bench", "--rtf", "-m", small_model, zh_wav, short_wav, "--trials", 1, *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    assert lines[0].split("  ")[0] == "case"
    assert " ".join(lines[0].split()) == (
        "case audio segments read VAD features encoder CTC prefill first token decode total spread tok/s tok/pass "
        "RTF MLX GB process GB"
    )
    rows = [line.split() for line in lines[2:4]]
    assert [row[:3] for row in rows] == [["zh-6s.wav", "6.00", "2"], ["short.wav", "0.500", "1"]]
    assert {len(row) for row in rows} == {18}
    assert {(row[7], row[14]) for row in rows} == {("0.000", "1.00")}, "no CTC branch, a token a pass"
    bars = lines[4:6]
    assert [bar.split(" ")[0] for bar in bars] == ["zh-6s.wav", "short.wav"]
    assert any("|decode" in bar for bar in bars)
    assert lines[6].startswith("Small-Nano: 0.2 million parameters, float32, 0.00 GB, loaded in ")
    assert (
        lines[8] == "Seconds: medians of 1 after a warm-up, in turns; spread: of the total, highest less lowest."
    )


def test_narrow_terminals_get_several_tables(small_model: Path, short_wav: Path) -> None:
    arguments = ("bench", "--rtf", "-m", small_model, short_wav, "--trials", 1, *QUICK)
    code, shown, _ = on_terminal(*arguments, COLUMNS="60")
    assert code == 0
    lines = screen(shown)
    assert sum(line.split()[:1] == ["case"] for line in lines) > 1
    for heading in ("encoder", "first token", "process GB"):
        assert any(heading in line for line in lines)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("form", [(), ("--json",), ("--markdown",)])
def test_no_room_for_the_result(form: tuple[str, ...]) -> None:
    arguments = ("bench", "--rtf", "--synthetic", "demo", "--durations", "1", "--trials", "1", *form)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment())
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard output: cannot be written (")


def test_markdown(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--rtf", "-m", small_model, short_wav, "--trials", 1, "--markdown", *QUICK)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(
        "| case | audio | segments | read | VAD | features | encoder | CTC | prefill | first token |"
    )
    assert lines[1] == "| --- |" + " ---: |" * 17
    assert lines[2].startswith("| short.wav | 0.500 | 1 | ")
    assert lines[2].count("|") == 19
    assert lines[3] == ""


def test_names_are_no_markup(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    clip = tmp_path / "[/red]a[bold].wav"  # in a folder that is called `[`
    clip.parent.mkdir()
    clip.write_bytes(short_wav.read_bytes())
    result = invoke("bench", "--rtf", "-m", small_model, clip, "--trials", 1, *QUICK)
    assert result.exit_code == 0
    assert "red]a[bold].wav" in result.stdout


@pytest.mark.slow
def test_generated_clips(small_model: Path) -> None:
    """Without a recording; the same ones every time."""
    runs = [measured("--rtf", "-m", small_model, "--trials", 1, *QUICK)["cases"] for _ in range(2)]
    for cases in runs:
        assert [(case["audio"], case["audio_s"]) for case in cases] == [
            (f"generated {seconds} s", float(seconds)) for seconds in (5, 10, 20)
        ]
    assert [case["texts"] for case in runs[0]] == [case["texts"] for case in runs[1]]


def test_model_from_a_variable(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    """Also of a folder with a space in its name; and a single one from the settings file."""
    model = shutil.copytree(small_model, tmp_path / "two words")
    options = ("bench", "--rtf", short_wav, "--trials", 1, "--json", *QUICK)
    result = invoke(*options, env={"FUNASR_MODEL": str(model)})
    assert len(json.loads(result.stdout)["models"]) == 1
    result = invoke(*options, env={"FUNASR_MODEL": os.pathsep.join([str(model), "demo"])})
    assert [model["model"] for model in json.loads(result.stdout)["models"]] == ["Small-Nano", "demo"]
    (tmp_path / "config.toml").write_text(f'model = "{model}"')
    result = invoke(*options, env={"FUNASR_CONFIG": str(tmp_path / "config.toml")})
    assert len(json.loads(result.stdout)["models"]) == 1


def test_bad_clip(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no recording")
    result = funasr("bench", "--rtf", "-m", small_model, short_wav, tmp_path / "a.wav", *QUICK)
    result.assert_fails(1, f"error[audio-unreadable]: {tmp_path / 'a.wav'}: not audio that can be read here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "error: say what to measure\n  one of --rtf, --batches, --drafts, --memory and --profile\n"),
        (("--rtf", "--memory"), "error: say what to measure\n"),
        (("--rtf", "--trials", "0"), "--trials"),
        (("--rtf", "--max-tokens", "0"), "error: max tokens is 0\n"),
        (("--rtf", "--json", "--markdown"), "error: --json with --markdown\n  choose one\n"),
        (
            ("--rtf", "--batch-sizes", "1,x"),
            "error: --batch-sizes 1,x\n  it takes numbers with commas in between, such as 1,4,16\n",
        ),
        (("--rtf", "--batch-sizes", "0"), "error: --batch-sizes 0\n  each must be at least 1\n"),
        (("--rtf", "--batch-sizes", "1.5"), "error: --batch-sizes 1.5\n  1.5 is no whole number\n"),
        (("--rtf", "--durations", "inf"), "error: --durations inf\n  each must be at least 0.1\n"),
        (("--rtf", "--synthetic", "huge"), "error: --synthetic huge\n  choose from full, demo\n"),
    ],
)
def test_usage_errors(options: tuple[str, ...], message: str) -> None:
    invoke("bench", "-m", "nowhere", *options).assert_fails(2, message)


def test_language_of_another_model(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--rtf", "-m", small_model, short_wav, "--lang", "ko")
    result.assert_fails(2, "error: language 'ko' is not one of this model's\n")


def test_no_model(tmp_path: Path) -> None:
    invoke("bench", "--rtf", env={"FUNASR_HOME": str(tmp_path)}).assert_fails(3, "no model has been converted yet")


def test_one_model_that_is_not_there(small_model: Path) -> None:
    invoke("bench", "--rtf", "-m", small_model, "-m", "nowhere").assert_fails(3, "error: nowhere: no such model\n")


def test_demo_clips_are_for_the_demo_model() -> None:
    data = measured("--rtf", "-m", "demo", "--trials", 1, "--max-tokens", 1)
    assert [case["audio"] for case in data["cases"]] == [str(clip.path) for clip in clips()]
