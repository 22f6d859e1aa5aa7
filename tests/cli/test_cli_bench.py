"""`funasr bench`: what it measures, the tables, the JSON, the pictures."""

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.benching import check_case, measured
from support.running import COMMAND, environment, funasr, invoke
from support.terminal import on_terminal, screen

from funasr_cli import demo
from funasr_cli.benchmarks.memory import run_memory
from funasr_cli.benchmarks.subjects import write_recording
from funasr_cli.demo import MODEL, clips
from funasr_cli.errors import FunASRError

QUICK = ("--max-tokens", "4")
RTF = ("--rtf", "-m", "demo", "--trials", 1)
CLIPS = demo.clips()[:2]


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
    assert [line.split(" 0.")[0] for line in lines[2:4]] == [f"2 recordings, batch of {n}" for n in (1, 2)]
    assert lines[2].endswith(" 1.00 2")
    assert "2 recordings, 1 s of audio, 4 tokens; medians of 1 after a warm-up, in turns." in lines
    assert "Exactly 2 tokens for each segment: texts mean nothing." in lines


@pytest.mark.process
def test_memory_of_the_command(small_model: Path) -> None:
    options = ("--durations", "3,90", "--max-tokens", 2)
    data = measured("--memory", "-m", small_model, "--synthetic", "demo", *options)
    assert data["models"] == []
    assert [case["case"] for case in data["cases"]] == [
        f"{model}, {length}" for length in ("3 s", "1.5 min") for model in ("Small-Nano", "synthetic demo")
    ]
    assert all(50e6 < case["peak_bytes"] < 4e9 for case in data["cases"])
    table = invoke("bench", "--memory", "-m", small_model, "--durations", "3", "--max-tokens", 2).stdout
    assert "Small-Nano, 3 s" in table
    assert "Each in a process of its own: most memory resident, and the whole command's time.\n" in table


@pytest.mark.process
def test_memory_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FunASRError, match=r"ended with 3: (?s:.*)no such model"):
        run_memory({"none": tmp_path / "none"}, [clips()[0].path], (1.0,), [], lambda _: None)


def test_recordings_are_as_long_as_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", [clip.path for clip in clips()[:2]], 12.5)
    samples, rate_hz = soundfile.read(tmp_path / "a.flac")
    assert len(samples) == 12.5 * rate_hz


@pytest.fixture
def refs(tmp_path: Path) -> Path:
    """What is said in two clips, with a word too many and a character that is another."""
    texts = [CLIPS[0].written + " Yes", CLIPS[1].written.replace("块", "元")]
    assert texts[1] != CLIPS[1].written
    path = tmp_path / "refs.tsv"
    lines = [f"{clip.path.name}\t{text}\n" for clip, text in zip(CLIPS, texts, strict=True)]
    path.write_text("".join(lines) + "\nelse.wav\t\n", encoding="utf-8")
    return path


def test_error_rates(refs: Path) -> None:
    cases = measured(*RTF, *(clip.path for clip in CLIPS), "--refs", refs, "--recordings", 2)["cases"]
    assert [case["errors"] for case in cases] == [
        {"substitutions": 0, "deletions": 1, "insertions": 0, "total": 8, "edits": 1, "percent": 12.5},
        {"substitutions": 1, "deletions": 0, "insertions": 0, "total": 6, "edits": 1, "percent": 100 / 6},
    ]
    assert cases[0]["texts"] == [CLIPS[0].written] * 2


def test_error_rates_in_the_table(refs: Path) -> None:
    paths = [clip.path for clip in CLIPS]
    shown = invoke("bench", *RTF, *paths, "--refs", refs).stdout
    assert f"demo, {paths[0].name}: 12.50 % errors, 1 of 8 (0 wrong, 1 missing, 0 too many).\n" in shown
    assert (
        "Errors: NFKC, case-folded, a unit for each CJK character and each other word, no punctuation.\n" in shown
    )
    batches = ("--batches", "-m", "demo", "--trials", 1, "--recordings", 4, "--batch-sizes", 4)
    (case,) = measured(*batches, *paths, "--refs", refs)["cases"]
    assert (case["errors"]["edits"], case["errors"]["total"]) == (2, 14), "each file counts once"


def test_texts_with_numbers_in_words(tmp_path: Path) -> None:
    (tmp_path / "refs.tsv").write_text(f"{CLIPS[0].path}\t{CLIPS[0].spoken}\n", encoding="utf-8")
    for itn, wrong in (("--no-itn", False), ("--itn", True)):
        data = measured(*RTF, CLIPS[0].path, "--refs", tmp_path / "refs.tsv", itn)
        assert bool(data["cases"][0]["errors"]["edits"]) == wrong


def test_comparison(tmp_path: Path) -> None:
    """With a measurement whose memory was half as much, of a case that is gone, with another MLX."""
    earlier = measured(*RTF, CLIPS[0].path)
    [before] = earlier["cases"]
    before["peak_mlx_bytes"] //= 2
    earlier["cases"].append(before | {"case": "demo, gone.wav"})
    earlier["versions"]["mlx"] = "0.1"
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(earlier), encoding="utf-8")
    compared = (*RTF, *(clip.path for clip in CLIPS), "--compare", path)
    data = measured(*compared)
    comparison, case = data["comparison"], f"demo, {CLIPS[0].path.name}"
    [(name, ratios)] = comparison["ratios"].items()
    assert name == case
    memory, tokens = ratios["peak_mlx_bytes"], ratios["tokens"]
    now = data["cases"][0]["peak_mlx_bytes"]
    assert memory["now_to_earlier"] == pytest.approx(now / before["peak_mlx_bytes"])
    assert not memory["within_spread"]
    assert (tokens["now_to_earlier"], tokens["within_spread"]) == (1, True)
    assert {"stages.total_s", "stages.first_token_s", "tokens_per_s", "rtf"} <= ratios.keys()
    assert not {"recordings", "batch_size", "audio_s", "texts", "model"} & ratios.keys()
    assert (comparison["only_now"], comparison["only_earlier"]) == (
        [f"demo, {CLIPS[1].path.name}"], ["demo, gone.wav"],
    )  # fmt: skip
    changes = [change for change in comparison["changes"] if "mlx" in change]
    assert changes == [f"versions.mlx: 0.1, then {data['versions']['mlx']}"]
    lines = invoke("bench", *compared, "--markdown").stdout.splitlines()
    [heading] = [line for line in lines if line.startswith("| now / earlier | ")]
    for column in ("total", "encoder", "first token", "decode", "tok/s", "passes", "MLX memory"):
        assert f" {column} |" in heading
    assert f"Not measured earlier: demo, {CLIPS[1].path.name}" in lines
    assert "Not measured now: demo, gone.wav" in lines
    assert f"Changed: {changes[0]}" in lines


def test_pictures(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    """Names are taken as they are, also where matplotlib would read mathematics."""
    clip = tmp_path / "$\\会议$.wav"
    clip.write_bytes(short_wav.read_bytes())
    options = ("--batch-sizes", "1,2", "--exact-tokens", 2, "--trials", 1, "--plot", tmp_path / "a.svg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = invoke("bench", "--rtf", "-m", small_model, clip, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
    for text in ("$\\会议$.wav x 2, batch of 1", "segments side by side", "VAD"):
        assert f"{text}</text>" in drawn


@pytest.mark.parametrize(
    ("mode", "label"),
    [
        (("--memory", "--durations", "2,3", "--max-tokens", 1), "minutes of audio"),
        (("--rtf", "--durations", "1,2", "--exact-tokens", 2, "--trials", 1), "seconds of audio in a recording"),
    ],
)
def test_pictures_of_lengths(
    mode: tuple[Any, ...], label: str, small_model: Path, short_wav: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "a.svg"):
        assert invoke("bench", *mode, "-m", small_model, short_wav, "--plot", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert f"{label}</text>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_synthetic_model_beside_a_real_one(short_wav: Path) -> None:
    data = measured("--rtf", "-m", "demo", "--synthetic", "demo", short_wav, "--trials", 1)
    assert [model["model"] for model in data["models"]] == ["demo", "synthetic demo"]
    assert data["settings"]["exact_tokens"] == 64
    assert [(case["segments"], case["tokens"]) for case in data["cases"]] == [(1, 64), (1, 64)]


def test_synthetic_model_alone_reads_generated_clips(tmp_path: Path) -> None:
    """It needs no model that has been converted, and a limit that was asked for stands."""
    options = ("--synthetic", "demo", "--trials", 1, "--max-tokens", 3, "--durations", "2", "--json")
    result = invoke("bench", "--rtf", *options, env={"FUNASR_HOME": str(tmp_path)})
    (case,) = json.loads(result.stdout)["cases"]
    assert (case["case"], case["tokens"]) == ("synthetic demo, generated 2 s", 3)
