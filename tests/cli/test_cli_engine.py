"""`--engine`: which one computes, where it is named, and how a run with the native one ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.measuring import measured
from support.native import LIBRARY, SETS, WITHOUT
from support.running import COMMAND, environment, invoke, load_once
from support.small import NATIVE as NATIVE_SHAPE
from support.small import MakeCheckpoint, convert

import funasr_cli
from funasr_cli import demo
from funasr_cli.errors import SetupError
from funasr_cli.families.kept import Int8Proof, Kept
from funasr_cli.families.load import UNPROVEN
from funasr_cli.families.open import open_model
from funasr_cli.native.library import is_bfloat16_fast

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
DATA = Path(__file__).parents[1] / "data"
CLIPS = demo.clips()
PATHS = [clip.path for clip in CLIPS]
BASE = ("transcribe", "-m", "demo")
MLX = "mlx float32, CPU"
OTHERS = "bfloat16" if LIBRARY and is_bfloat16_fast(LIBRARY) else "float32"  # what is not a decoder, with int8
NATIVE = f"native int8, encoder {OTHERS}, {SETS[0]}" if SETS else ""
NATIVE_FLOAT32 = f"native float32, {SETS[0]}" if SETS else ""
NATIVE_SENSE_VOICE = f"native {OTHERS}, {SETS[0]}" if SETS else ""


@needs_library
@pytest.mark.parametrize(
    ("options", "variables", "engine"),
    [
        ((), {}, NATIVE),
        (("--engine", "auto", "--dtype", "auto"), {"FUNASR_ENGINE": "mlx", "FUNASR_DTYPE": "float32"}, NATIVE),
        (("--engine", "native"), {}, NATIVE),
        (("--engine", "mlx"), {}, MLX),
        (("--dtype", "int8"), {}, NATIVE),
        (("--dtype", "float32"), {}, MLX),
        ((), {"FUNASR_DTYPE": "float32"}, MLX),
        ((), {"FUNASR_NATIVE": "0"}, MLX),
        ((), {"FUNASR_ENGINE": "native"}, NATIVE),
        (("--engine", "mlx"), {"FUNASR_ENGINE": "native"}, MLX),
        (("--engine", "native", "--dtype", "float32"), {}, NATIVE_FLOAT32),
    ],
)
def test_results_and_details_name_the_engine(
    options: tuple[str, ...], variables: dict[str, str], engine: str
) -> None:
    result = invoke(*BASE, *PATHS[:2], "-f", "jsonl", "-v", *options, env=variables)
    assert result.exit_code == 0, result
    lines = list(map(json.loads, result.stdout.splitlines()))
    assert [line["engine"] for line in lines] == [engine] * 2
    assert [line["text"] for line in lines] == [clip.written for clip in CLIPS[:2]]
    assert f"engine: {engine}" in result.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "stored"])
def test_a_type_that_is_slow_on_a_cpu_is_warned_of_once(dtype: str) -> None:
    result = invoke(*BASE, *PATHS[:2], "--dtype", dtype)
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ") and "CPU" in line]
    assert len(lines) == (dtype != "float32")
    assert all(f"--dtype {dtype}" in line for line in lines)


@needs_library
def test_info_names_the_instruction_sets() -> None:
    facts = json.loads(invoke("info", "--json").stdout)
    assert facts["native engine"].split(", ") == list(SETS)
    without = invoke("info", env={"FUNASR_NATIVE": "0"})
    assert "not available: it is switched off by FUNASR_NATIVE=0" in without.stdout
    assert "FUNASR_NATIVE" not in without.stderr


@needs_library
def test_measurements_name_the_engine() -> None:
    data = measured("--rtf", "-m", "demo", PATHS[0], "--trials", 1, "--engine", "native")
    assert data["settings"]["engine"] == "native"
    (model,) = data["models"]
    assert model["engine"] == NATIVE
    assert model["native_bytes"] > 1e6
    table = invoke("bench", "--rtf", "-m", "demo", PATHS[0], "--trials", 1, "--markdown", "--engine", "native")
    assert f"computed by {NATIVE}" in table.stdout


@pytest.mark.process
@needs_library
def test_memory_is_measured_with_the_engine() -> None:
    data = measured("--memory", "-m", "demo", "--durations", 5, "--max-tokens", 2, "--engine", "native")
    assert data["settings"]["engine"] == "native"


@needs_library
def test_resume_does_not_mix_engines(tmp_path: Path) -> None:
    """A result of another engine or type is made again; one of `auto` is one of the engine that it means."""
    command = (*BASE, PATHS[0], "-o", tmp_path)
    assert invoke(*command).exit_code == 0
    for options, skipped in (
        (("--engine", "auto"), True), (("--engine", "native"), True), (("--dtype", "int8"), True),
        (("--engine", "mlx"), False), (("--engine", "mlx"), True), (("--dtype", "float32"), False),
        (("--engine", "native", "--dtype", "float32"), False), ((), False), ((), True),
    ):  # fmt: skip
        result = invoke(*command, "--resume", *options)
        assert result.exit_code == 0
        assert ("the options" not in result.stderr) == skipped, (options, result.stderr)


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        (("--dtype", "int8", "--engine", "mlx"), "options-conflict", ("int8", "--engine mlx")),
        (("--dtype", "stored", "--engine", "native"), "option-value", ("stored", "int8, float32")),
    ],
)
def test_types_that_an_engine_does_not_have(options: tuple[str, ...], code: str, values: tuple[str, ...]) -> None:
    invoke(*BASE, PATHS[0], *options).assert_error(2, code, *values)


@needs_library
def test_a_model_whose_texts_int8_changes(tmp_path: Path) -> None:
    """It is computed in float32, which is stated in each run, unless int8 is asked for."""
    folder = Path(shutil.copytree(demo.MODEL, tmp_path / "m"))
    Kept.about(open_model(folder), folder).keep_proof(Int8Proof(("a", "b", "c"), ("b",)))
    command = ("transcribe", "-m", folder, PATHS[0], "-f", "jsonl")
    for options, engine, notes in (
        ((), MLX, 1),
        (("--dtype", "int8"), NATIVE, 0),
        (("--dtype", "float32"), MLX, 0),
    ):
        result = invoke(*command, *options)
        assert json.loads(result.stdout)["engine"] == engine
        assert result.stderr.count("int8 changes the text of 1 of 3 clips") == notes
    assert "int8" not in invoke(*command, "-q").stderr
    data = measured("--rtf", "-m", folder, PATHS[0], "--trials", 1)
    assert data["models"][0]["engine"] == MLX


@needs_library
def test_the_first_use_of_a_model(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """Its texts are compared once, with a note; what was found is kept and used."""
    random = funasr_cli.convert(make_checkpoint(seed=2, **NATIVE_SHAPE), tmp_path / "random", verify="off").folder
    trained = funasr_cli.convert(demo.MODEL, tmp_path / "trained", verify="off").folder
    for folder, engine in ((trained, NATIVE), (random, MLX)):
        command = ("transcribe", "-m", folder, PATHS[0], "-f", "jsonl", "--max-tokens", 4)
        runs = [invoke(*command) for _ in range(2)]
        assert [json.loads(run.stdout)["engine"] for run in runs] == [engine] * 2
        assert [f"{folder.name}: comparing int8 with float32" in run.stderr for run in runs] == [
            True,
            False,
        ]
        assert ["int8 changes the text" in run.stderr for run in runs] == [engine == MLX] * 2
        assert (folder / "native/int8.json").is_file()


@needs_library
def test_too_little_memory_for_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(demo.MODEL, tmp_path / "m").folder
    error = SetupError("no memory", UNPROVEN, code="memory-short")
    monkeypatch.setattr("funasr_cli.families.load.prove", Mock(side_effect=error))
    invoke("transcribe", "-m", folder, PATHS[0]).assert_error(5, "memory-short", "--dtype int8")
    result = invoke("transcribe", "-m", folder, PATHS[0], "--dtype", "int8")
    assert (result.exit_code, result.stdout) == (0, f"{CLIPS[0].written}\n")


@needs_library
@pytest.mark.parametrize(
    ("options", "variables", "engine", "ignored"),
    [
        ((), {"FUNASR_DTYPE": "int8"}, NATIVE, None),
        ((), {"FUNASR_DTYPE": "int8", "FUNASR_NATIVE": "0"}, MLX, "FUNASR_NATIVE=0"),
        (("--dtype", "int8"), {"FUNASR_ENGINE": "mlx"}, NATIVE, "int8"),
        (("--engine", "mlx"), {"FUNASR_DTYPE": "int8"}, MLX, "int8"),
        (("--engine", "native"), {"FUNASR_DTYPE": "stored"}, NATIVE, "stored"),
        ((), {"FUNASR_ENGINE": "native", "FUNASR_DTYPE": "stored"}, NATIVE, "stored"),
        (("--dtype", "float32"), {"FUNASR_ENGINE": "native"}, NATIVE_FLOAT32, None),
        (("--dtype", "stored"), {"FUNASR_ENGINE": "native"}, MLX.replace("float32", "bfloat16"), "stored"),
        ((), {"FUNASR_ENGINE": "native", "FUNASR_NATIVE": "0"}, MLX, "FUNASR_NATIVE=0"),
        ((), {"FUNASR_ENGINE": "native", "FUNASR_DTYPE": "int8", "FUNASR_NATIVE": "0"}, MLX, "FUNASR_NATIVE=0"),
    ],
)
def test_defaults_that_do_not_suit(
    options: tuple[str, ...], variables: dict[str, str], engine: str, ignored: str | None
) -> None:
    """Those from variables are ignored without an error, and -v says why."""
    load_once.cache_clear()
    result = invoke(*BASE, PATHS[0], "-f", "jsonl", "-v", *options, env=variables)
    assert result.exit_code == 0, result
    assert json.loads(result.stdout)["engine"] == engine
    details = [line for line in result.stderr.splitlines() if "is ignored" in line]
    assert len(details) == (ignored is not None)
    assert all(str(ignored) in line for line in details)
    assert "is ignored" not in invoke(*BASE, PATHS[0], *options, env=variables).stderr


@needs_library
@pytest.mark.parametrize("dtype", [None, "int8", "float32"])
def test_a_family_without_a_decoder(dtype: str | None, tmp_path: Path) -> None:
    """int8 is the decoder's type: without one, all is in the type of the other networks, and results say so."""
    folder = convert(DATA / "sense_voice_small", tmp_path / "m").folder
    options = ("--engine", "native", *(("--dtype", dtype) if dtype else ()))
    texts = {}
    for chosen in (("--dtype", "float32"), options):
        result = invoke("transcribe", "-m", folder, PATHS[0], "-f", "jsonl", *chosen)
        assert result.exit_code == 0, result
        found = json.loads(result.stdout)
        texts[found["engine"]] = found["text"]
    engine = NATIVE_FLOAT32 if dtype == "float32" else NATIVE_SENSE_VOICE
    assert list(texts) == [MLX, engine]
    assert len(set(texts.values())) == 1


@needs_library
def test_nothing_is_called_int8_without_a_decoder(tmp_path: Path) -> None:
    """The note about the comparison, and what is reported about it."""
    source = DATA / "sense_voice_small"
    folder = funasr_cli.convert(source, tmp_path / "models/sense", verify="off").folder
    first = invoke("transcribe", "-m", folder, PATHS[0])
    assert "with float32 on a few clips" in first.stderr
    home = {"FUNASR_HOME": str(tmp_path)}
    shown = json.loads(invoke("info", "--json", env=home).stdout)["compared with float32"]["sense"]
    converted = invoke("convert", source, tmp_path / "again")
    assert "as with float32" in converted.stderr
    for text in (first.stderr, shown.replace("int8.safetensors", ""), converted.stderr):
        assert "int8" not in text


@needs_library
def test_measurements_of_several_families_with_a_default_engine(tmp_path: Path) -> None:
    folder = convert(DATA / "sense_voice_small", tmp_path / "m").folder
    result = invoke(
        "bench", "--rtf", "-m", "demo", "-m", folder, PATHS[0], "--trials", 1, "--json",
        env={"FUNASR_ENGINE": "native"},
    )  # fmt: skip
    assert result.exit_code == 0, result
    assert [model["engine"] for model in json.loads(result.stdout)["models"]] == [NATIVE, NATIVE_SENSE_VOICE]


def test_an_engine_that_is_missing() -> None:
    load_once.cache_clear()
    for option in ("--engine native", "--dtype int8"):
        result = invoke(*BASE, PATHS[0], *option.split(), env={"FUNASR_NATIVE": "0"})
        result.assert_error(5, "package-missing", option, "FUNASR_NATIVE=0")


@needs_library
def test_another_model_s_word_times_are_computed_by_mlx(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """The engine and its type are those of the main model's decoder alone."""
    folder = convert(make_checkpoint(**NATIVE_SHAPE), tmp_path / "m").folder
    result = invoke(
        "transcribe", "-m", folder, PATHS[0], "--align-with", "demo", "--engine", "native", "--max-tokens", 4,
        "-f", "json",
    )  # fmt: skip
    assert json.loads(result.stdout)["engine"] == NATIVE, result.stderr


@needs_library
@pytest.mark.process
@pytest.mark.parametrize("moment", range(4))
def test_ctrl_c(moment: int) -> None:
    """At several moments while texts are written: the process ends soon, without a traceback."""
    command = [*COMMAND, *map(str, (*BASE, *PATHS * 300, "--engine", "native"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout
        os.read(process.stdout.fileno(), 1)
        time.sleep(0.037 * moment)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, stderr = process.communicate(timeout=60)
        assert time.monotonic() - started < 10  # long before all recordings are done, on a busy machine, too
    assert process.returncode == 130
    assert [line.partition(":")[0] for line in stderr.decode().splitlines()] == ["warning"]
    assert stderr.startswith(b"warning: interrupted")
