"""`funasr bench`: measurements, tables, JSON and pictures."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.errors import refused
from support.measuring import check_case, measured
from support.native import LIBRARY
from support.running import invoke, load_once
from support.speaking import SpeakingModel

from funasr_cli import demo
from funasr_cli.benchmarks.costs import COSTS_FILE
from funasr_cli.benchmarks.memory import run_memory
from funasr_cli.benchmarks.subjects import write_recording
from funasr_cli.capabilities import Capabilities
from funasr_cli.demo import MODEL, clips

QUICK = ("--max-tokens", "4")
RTF = ("--rtf", "-m", "demo", "--trials", 1)
CLIPS = demo.clips()[:2]
process = pytest.mark.process
DIGITS = next(clip for clip in demo.clips() if clip.written == "792")


@pytest.mark.slow
def test_json(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    load_once.cache_clear()  # loading must be measured as well
    data = measured("--rtf", "-m", small_model, zh_wav, short_wav, "--trials", 3, *QUICK)
    assert (data["format"], data["format_version"], data["mode"]) == ("funasr-bench", 1, "rtf")
    assert data["settings"] == {
        "language": "auto", "max_tokens": 4, "exact_tokens": None, "itn": True, "drafts": ["auto"],
        "device": None, "dtype": "auto", "engine": "auto", "trials": 3,
    }  # fmt: skip
    assert {"python", "funasr-cli", "mlx", "numpy"} <= data["versions"].keys()
    assert data["machine"].keys() == {"system", "processor", "cores", "memory_bytes", "gpu", "blas", "threads"}
    (model,) = data["models"]
    assert (model["model"], model["weights"]) == ("Small-Nano", "float32")
    assert 4 * model["parameters"] == pytest.approx(model["mlx_bytes"], rel=0.1)  # other arrays may be in memory
    assert 0 < model["load_s"]["low"] <= model["load_s"]["high"]
    facts = ("case", "audio", "audio_s", "segments", "tokens", "decoder_calls", "passes", "drafted", "accepted")
    assert [tuple(case[name] for name in facts) for case in data["cases"]] == [
        ("Small-Nano, zh-6s.wav", str(zh_wav), 6.0, 2, 8, 8, 8, 0, 0),  # no CTC branch
        ("Small-Nano, short.wav", str(short_wav), 0.5, 1, 4, 4, 4, 0, 0),
    ]
    for case in data["cases"]:
        check_case(case, trials=3)
        assert case["stages"]["ctc_s"]["high"] == 0


def shown_cost(env: dict[str, str]) -> dict[str, Any] | None:
    """Return what `funasr models` shows as the cost of the demo model."""
    [row] = [row for row in json.loads(invoke("models", "--json", env=env).stdout) if row["name"] == "demo"]
    cost: dict[str, Any] | None = row["cost"]
    return cost


def test_models_show_what_bench_measured(tmp_path: Path) -> None:
    env = {"FUNASR_HOME": str(tmp_path)}
    assert shown_cost(env) is None
    measured(*RTF, *QUICK, CLIPS[0].path, env=env)  # texts that were cut short are no measure
    assert shown_cost(env) is None
    [case] = measured(*RTF, CLIPS[0].path, env=env)["cases"]
    cost = shown_cost(env)
    assert cost
    assert (cost["rtf"], cost["audio_s"]) == pytest.approx((case["rtf"]["median"], case["audio_s"]))
    assert f"{cost['rtf']:.3g} s" in invoke("models", env=env).stdout
    file = tmp_path / COSTS_FILE
    content = json.loads(file.read_text())
    for change in ({"weights_ns": 0}, {"processor": "another"}, {"rtf": None}):  # other weights, another machine
        file.write_text(json.dumps({name: stated | change for name, stated in content.items()}))
        assert shown_cost(env) is None
    file.write_text("{")
    assert shown_cost(env) is None
    measured(*RTF, CLIPS[0].path, env=env)
    assert shown_cost(env)


RTF_COLUMNS = (  # both lines of the headings
    "audio read VAD features encoder CTC prefill first token decode total spread tokens tokens MLX process",
    "case s segments s s s s s s s s s % per s per call RTF GB GB",
)
BATCH_COLUMNS = "total spread audio s tokens times same", "case s % per s per s faster texts"
DRAFT_COLUMNS = (
    "decoder tokens accepted text spread times faster same", "case calls per call % s % faster in all texts"
)  # fmt: skip
MEMORY_COLUMNS = "peak more total", "case GB MB s RTF"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "columns", "rows"),
    [
        ("--rtf", RTF_COLUMNS, ["a.flac 1.67 1"]),
        ("--rtf --refs refs.tsv", (f"{RTF_COLUMNS[0]} errors", f"{RTF_COLUMNS[1]} %"), ["a.flac 1.67 1"]),
        ("--batches --recordings 2 --batch-sizes 1,2", BATCH_COLUMNS,
         [f"2 recordings, batch of {size} " for size in (1, 2)]),
        ("--drafts", DRAFT_COLUMNS, [
            f"1 recordings, batch of {size}, draft {draft} " for size in (1, 16) for draft in ("off", "auto")
        ]),
        pytest.param("--memory --durations 3", MEMORY_COLUMNS, ["demo, 3 s "], marks=process),
    ],
)  # fmt: skip
def test_tables(
    mode: str, columns: tuple[str, str], rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has a title, headings with units, and a row for each case."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(DIGITS.path, "a.flac")
    Path("refs.tsv").write_text(f"a.flac\t{DIGITS.written} 5\n", encoding="utf-8")
    trials = [] if "memory" in mode else ["--trials", 1]
    result = invoke("bench", *mode.split(), "-m", "demo", "a.flac", *trials, "--engine", "mlx")
    assert (result.exit_code, result.stderr) == (0, ""), result
    lines = [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()]
    assert lines[0].endswith("." if "memory" in mode else ": one run after a warm-up.")
    assert tuple(lines[1:3]) == columns
    assert len(lines) >= 4 + len(rows)
    for line, row in zip(lines[4:], rows, strict=False):
        assert line.startswith(row)
    bars = [line for line in lines if " |" in line]  # how long their parts are depends on the machine
    assert len(bars) == (0 if "memory" in mode else len(rows))
    assert ("a.flac: 50.00 % errors, 1 of 2 (" in result.stdout) == ("refs" in mode)


@pytest.mark.slow
def test_every_combination_is_measured(small_model: Path, tmp_path: Path, short_wav: Path) -> None:
    """Models x durations x batch sizes. Two models with the same name are distinguished by their folders."""
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
        assert case["recordings"] == 2, "enough to fill the largest batch"
        assert case["audio_s"] == 2 * float(case["audio"].split()[1])
        assert case["tokens"] == 2 * case["segments"]
        check_case(case, trials=1)


@pytest.mark.slow
def test_memory_of_a_case_leaves_other_models_out(small_model: Path, short_wav: Path) -> None:
    """The demo model takes 14 MB, the small one half a megabyte."""
    load_once.cache_clear()
    options = (short_wav, "--trials", 1, "--exact-tokens", 1, "--engine", "mlx")
    alone = measured("--rtf", "-m", small_model, *options)["cases"][0]["peak_mlx_bytes"]
    together = measured("--rtf", "-m", small_model, "-m", MODEL, *options)["cases"]
    assert [case["model"] for case in together] == ["Small-Nano", "demo"]
    assert together[0]["peak_mlx_bytes"] == pytest.approx(alone, abs=2e6)
    assert together[1]["peak_mlx_bytes"] > alone + 10e6


@pytest.mark.slow
def test_models_from_a_variable_and_the_settings_file(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    """FUNASR_MODEL may name a folder with a space in its name; the settings file may name a single model."""
    model = shutil.copytree(small_model, tmp_path / "two words")
    options = ("bench", "--rtf", short_wav, "--trials", 1, "--json", *QUICK)
    result = invoke(*options, env={"FUNASR_MODEL": str(model)})
    assert len(json.loads(result.stdout)["models"]) == 1
    result = invoke(*options, env={"FUNASR_MODEL": os.pathsep.join([str(model), "demo"])})
    assert [model["model"] for model in json.loads(result.stdout)["models"]] == ["Small-Nano", "demo"]
    (tmp_path / "config.toml").write_text(f'model = "{model}"')
    result = invoke(*options, env={"FUNASR_CONFIG": str(tmp_path / "config.toml")})
    assert len(json.loads(result.stdout)["models"]) == 1


@pytest.mark.slow
def test_batches_decode_the_same_exact_number_of_tokens(small_model: Path) -> None:
    options = ("--recordings", 5, "--trials", 2, "--exact-tokens", 3)
    data = measured("--batches", "-m", small_model, clips()[0].path, clips()[1].path, *options)
    cases = data["cases"]
    assert [case["batch_size"] for case in cases] == [1, 4, 16]
    for case in cases:
        assert case["case"] == f"Small-Nano, 5 recordings, batch of {case['batch_size']}"
        assert case["recordings"] == case["segments"] == 5
        assert case["tokens"] == 5 * 3, "one segment each, even if the model would write fewer or more tokens"
        assert case["same_texts"] == 5
        assert case["audio_s"] == pytest.approx(cases[0]["audio_s"])
        seconds, first = case["stages"]["total_s"]["median"], cases[0]["stages"]["total_s"]["median"]
        assert case["times_faster"] == pytest.approx(first / seconds)


@pytest.mark.process
def test_memory_of_a_missing_model(tmp_path: Path) -> None:
    with refused("command-failed", "exit code 3: ", "no such folder"):
        run_memory({"none": ["-m", str(tmp_path / "none")]}, [clips()[0].path], (1.0,), lambda _: None)


def test_recordings_are_as_long_as_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", [clip.path for clip in clips()[:2]], 12.5)
    samples, rate_hz = soundfile.read(tmp_path / "a.flac")
    assert len(samples) == 12.5 * rate_hz


@pytest.fixture
def refs(tmp_path: Path) -> Path:
    """Return a reference file for two clips, with one extra word and one wrong character."""
    texts = [CLIPS[0].written + " Yes", CLIPS[1].written.replace("块", "元")]
    assert texts[1] != CLIPS[1].written
    path = tmp_path / "refs.tsv"
    lines = [f"{clip.path.name}\t{text}\n" for clip, text in zip(CLIPS, texts, strict=True)]
    path.write_text("".join(lines) + "\nelse.wav\t\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_error_rates(refs: Path) -> None:
    paths = [clip.path for clip in CLIPS]
    cases = measured(*RTF, *paths, "--refs", refs, "--recordings", 2)["cases"]
    assert [case["errors"] for case in cases] == [
        {"substitutions": 0, "deletions": 1, "insertions": 0, "total": 8, "edits": 1, "percent": 12.5},
        {"substitutions": 1, "deletions": 0, "insertions": 0, "total": 6, "edits": 1, "percent": 100 / 6},
    ]
    assert cases[0]["texts"] == [CLIPS[0].written] * 2
    batches = ("--batches", "-m", "demo", "--trials", 1, "--recordings", 4, "--batch-sizes", 4)
    (case,) = measured(*batches, *paths, "--refs", refs)["cases"]
    assert (case["errors"]["edits"], case["errors"]["total"]) == (2, 14), "each file must count once"


@pytest.mark.slow
def test_comparison(tmp_path: Path) -> None:
    """The earlier measurement used half the memory, a case that no longer exists, and another MLX."""
    earlier = measured(*RTF, CLIPS[0].path)
    [before] = earlier["cases"]
    before["peak_mlx_bytes"] //= 2
    del before["decoder_calls"]  # as in reports of earlier versions, which have only `passes`
    earlier["cases"].append(before | {"case": "demo, gone.wav"})
    earlier["versions"]["mlx"] = "0.1"
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(earlier), encoding="utf-8")
    compared = (*RTF, *(clip.path for clip in CLIPS), "--compare", path)
    data = measured(*compared)
    comparison = data["comparison"]
    [ratios] = comparison["ratios"].values()
    memory, tokens = ratios["peak_mlx_bytes"], ratios["tokens"]
    now = data["cases"][0]["peak_mlx_bytes"]
    assert memory["now_to_earlier"] == pytest.approx(now / before["peak_mlx_bytes"])
    assert not memory["within_spread"]
    assert (tokens["now_to_earlier"], tokens["within_spread"]) == (1, True)
    assert {"stages.total_s", "stages.first_token_s", "tokens_per_s", "rtf"} <= ratios.keys()
    assert not {"recordings", "batch_size", "audio_s", "texts", "model", "passes"} & ratios.keys()
    assert ratios["decoder_calls"]["now_to_earlier"] == 1
    alone = [f"demo, {CLIPS[1].path.name}"], ["demo, gone.wav"]
    assert (comparison["only_now"], comparison["only_earlier"]) == alone
    change = f"versions.mlx: 0.1, then {data['versions']['mlx']}"
    assert change in comparison["changes"]
    shown = invoke("bench", *compared, "--markdown").stdout
    heading = [line for line in shown.splitlines() if line.startswith("| case | ")][-1]
    for column in ("total", "encoder", "first token", "decode", "tokens per s", "calls", "MLX memory"):
        assert f" {column} |" in heading
    assert all(text in shown for text in (alone[0][0], alone[1][0], change))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "texts"),
    [
        ("--rtf --batch-sizes 1,2", ["$\\会议$.wav x 2, batch of 1", "batch size, segments", "VAD"]),
        ("--rtf --durations 1,2", ["seconds of audio per recording"]),
        pytest.param("--memory --durations 2,3", ["minutes of audio"], marks=process),
    ],
)
def test_pictures(mode: str, texts: list[str], small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    """Names are drawn literally, even if they contain Rich markup, emoji codes or matplotlib's mathematics."""
    clip = tmp_path / "[red]:smile:$\\会议$.wav"
    clip.write_bytes(short_wav.read_bytes())
    options = ("--max-tokens", 2) if "memory" in mode else ("--exact-tokens", 2, "--trials", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = invoke("bench", *mode.split(), "-m", small_model, clip, *options, "--plot", tmp_path / "a.svg")
    assert (result.exit_code, result.stderr) == (0, "")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for text in texts:
        assert f"{text}</text>" in drawn
    assert "--durations" in mode or clip.name in result.stdout


@pytest.mark.slow
def test_results_are_printed_if_the_picture_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurements are printed anyway."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.svg")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    result = invoke("bench", *RTF, CLIPS[0].path, "--json", "--plot", tmp_path / "a.svg")
    assert [case["texts"] for case in json.loads(result.stdout)["cases"]] == [[CLIPS[0].written]]
    assert (result.exit_code, [code for code, _ in result.errors]) == (1, ["path-refused"])


@pytest.mark.slow
def test_synthetic_models(short_wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be measured with a real model, or alone without any converted model. An explicit limit applies."""
    data = measured("--rtf", "-m", "demo", "--synthetic", "demo", short_wav, "--trials", 1)
    assert [model["model"] for model in data["models"]] == ["demo", "synthetic demo"]
    assert data["settings"]["exact_tokens"] == 64
    assert [(case["segments"], case["tokens"]) for case in data["cases"]] == [(1, 64), (1, 64)]
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    alone = measured("--rtf", "--synthetic", "demo", "--trials", 1, "--max-tokens", 3, "--durations", "2")
    assert [(case["case"], case["tokens"]) for case in alone["cases"]] == [("synthetic demo, generated 2 s", 3)]


def test_settings_that_a_model_lacks_are_ignored(short_wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is ignored for a model that does not support it; the option on the command line is refused."""
    monkeypatch.setattr("funasr_cli.benchmarks.subjects.load_model", lambda *_: SpeakingModel())
    base = ("bench", "--rtf", "-m", "demo", short_wav, "--trials", 1, "--json")
    assert invoke(*base, env={"FUNASR_MAX_TOKENS": "50", "FUNASR_DRAFT": "off"}).exit_code == 0
    for typed in (("--max-tokens", 50), ("--draft", "off"), ("--itn",)):
        invoke(*base, *typed).assert_error(2, "option-unsupported", typed[0], "owner/Speaking")


def test_what_a_model_lacks_is_refused_before_memory_is_measured(
    short_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a setting, it is not passed on."""
    given: list[dict[str, list[str]]] = []
    monkeypatch.setattr("funasr_cli.benchmarks.report.capabilities", lambda _: Capabilities(("zh", "en")))
    monkeypatch.setattr("funasr_cli.benchmarks.report.run_memory", lambda models, *_: given.append(models) or ())
    base = ("bench", "--memory", "-m", "demo", short_wav, "--json")
    invoke(*base, "--max-tokens", 50).assert_error(2, "option-unsupported", "--max-tokens", "demo")
    assert given == []
    assert invoke(*base, env={"FUNASR_MAX_TOKENS": "50"}).exit_code == 0
    assert [arguments for models in given for arguments in models.values()] == [
        ["-m", str(demo.MODEL), "--lang", "auto", "--engine", "native" if LIBRARY else "mlx"]
    ]


CTRL_C = """
import abc, signal, sys
register = abc.ABCMeta.register
def interrupting(cls, subclass):
    if cls.__name__ == "Sequence" and subclass.__module__.startswith("numpy.random"):
        signal.raise_signal(signal.SIGINT)
    return register(cls, subclass)
abc.ABCMeta.register = interrupting
sys.argv = ["funasr", "bench", "--rtf", "--synthetic", "demo", "--trials", "1", "--max-tokens", "1"]
from funasr_cli.__main__ import main
main()
"""


@process
def test_ctrl_c_is_not_lost_while_numpy_random_is_imported() -> None:
    """Where it registers its arrays, code that Cython writes has `except: pass`."""
    result = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "warning: interrupted\n")
