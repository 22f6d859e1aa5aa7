"""Which engine and number type `choose_engine` chooses: device, library, model, proof and options."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.small import convert

import funasr_cli
from funasr_cli import demo
from funasr_cli.errors import FunASRError
from funasr_cli.families import load, native, registry
from funasr_cli.families.kept import Int8Proof, Kept
from funasr_cli.families.load import choose_engine, load_aligner, load_model
from funasr_cli.families.open import open_model
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.options import NATIVE_DTYPES

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
SAME, OTHER = Int8Proof(("a", "b")), Int8Proof(("a", "b"), ("b",))
DTYPES = ("auto", "stored", "float32", "bfloat16", "int8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo.MODEL, tmp_path / "m"))


def keep(folder: Path, proof: Int8Proof) -> None:
    Kept.about(open_model(folder), folder).keep_proof(proof)


@pytest.fixture(params=["CPU", "no library", "GPU"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "CPU" and LIBRARY is None:
        pytest.skip(WITHOUT)
    if request.param == "no library":
        monkeypatch.setenv("FUNASR_NATIVE", "0")
    elif request.param == "GPU":
        for module in (load, native):
            monkeypatch.setattr(module, "on_accelerator", lambda: True)
    return request.param


def chosen(folder: Path, dtype: str, engine: str, optional: tuple[str, ...] = ()) -> tuple[str | None, str] | str:
    """Return the choice, or the code of the error."""
    try:
        return choose_engine(folder, dtype, engine, optional)[:2]
    except FunASRError as error:
        return error.code


@pytest.mark.parametrize("proof", [SAME, OTHER])
@pytest.mark.parametrize("engine", ["auto", "mlx", "native"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_options_on_the_command_line(
    folder: Path, machine: str, dtype: str, engine: str, proof: Int8Proof
) -> None:
    keep(folder, proof)
    typed = None if dtype == "auto" else dtype
    if engine == "native":  # what is missing is reported when the model is loaded
        expected = (typed, "native") if typed in (None, *NATIVE_DTYPES) else "option-value"
    elif engine == "mlx":
        expected = "options-conflict" if dtype == "int8" else (typed, "mlx")
    elif dtype == "int8":
        expected = {"CPU": ("int8", "native"), "no library": "package-missing", "GPU": "options-conflict"}[machine]
    elif dtype == "auto" and machine == "CPU" and proof.holds:
        expected = (None, "native")
    else:
        expected = (typed, "mlx")
    assert chosen(folder, dtype, engine) == expected


@pytest.mark.parametrize("engine", ["auto", "mlx", "native"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_defaults_never_fail(folder: Path, machine: str, dtype: str, engine: str) -> None:
    """Both may come from variables: they are dropped if they do not suit, and the engine counts."""
    keep(folder, SAME)
    found = choose_engine(folder, dtype, engine, ("dtype", "engine"))
    is_native = machine == "CPU" and (engine == "native" or (engine == "auto" and dtype in ("auto", "int8")))
    kept = dtype if dtype in (NATIVE_DTYPES if is_native else ("stored", "float32", "bfloat16")) else None
    if engine == "native" and dtype not in NATIVE_DTYPES:
        kept = None
    assert found[:2] == (kept, "native" if is_native else "mlx")
    dropped = (engine == "native" and not is_native) or (dtype != "auto" and dtype != kept)
    assert bool(found.ignored) == dropped


@needs_library
def test_a_type_on_the_command_line_and_a_default_engine(folder: Path) -> None:
    keep(folder, SAME)
    assert chosen(folder, "stored", "native", ("engine",)) == ("stored", "mlx")
    assert chosen(folder, "int8", "mlx", ("engine",)) == ("int8", "native")
    assert chosen(folder, "stored", "native", ("dtype",)) == (None, "native")


@needs_library
def test_only_the_default_needs_a_proof(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "native")
    monkeypatch.setattr(load, "prove", None)
    for dtype, engine in (("int8", "auto"), ("float32", "auto"), ("auto", "mlx"), ("auto", "native")):
        choose_engine(folder, dtype, engine)
    with pytest.raises(TypeError):
        choose_engine(folder)
    monkeypatch.setattr(load, "prove", lambda *_: OTHER)
    found = choose_engine(folder)
    assert found[:2] == (None, "mlx")
    assert found.exact
    assert "1 of 2" in found.exact


@pytest.mark.parametrize("why", ["another family", "an odd shape", "an odd group"])
def test_models_that_the_engine_cannot_compute_need_no_proof(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "prove", None)
    if why == "another family":
        folder, family_of = convert(demo.MODEL, tmp_path / "m").folder, registry.of_config
        monkeypatch.setattr(registry, "of_config", lambda config: replace(family_of(config), native=()))
    elif why == "an odd group":
        folder = convert(demo.MODEL, tmp_path / "m", quantize="8", group_size=32).folder
    else:
        folder = convert(demo.MODEL, tmp_path / "m").folder
        monkeypatch.setattr(NativeQwen3, "why_unsupported", lambda _: "odd")
    assert choose_engine(folder) == (None, "mlx", None, None, None)
    assert chosen(folder, "int8", "auto") == "option-unsupported"
    assert load_model(folder).engine == "mlx float32, CPU"


@pytest.mark.parametrize("quantize", [None, "8"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["auto", "stored", "float32", "bfloat16"])
def test_types_that_are_slow_on_a_cpu(
    dtype: str, stored: str, quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = convert(demo.MODEL, tmp_path / "m", dtype=stored, quantize=quantize).folder
    is_slow = dtype == "bfloat16" or (dtype == "stored" and (stored == "bfloat16" or quantize is not None))
    assert bool(choose_engine(folder, dtype, "mlx").slow) == is_slow
    monkeypatch.setattr(load, "on_accelerator", lambda: True)
    assert choose_engine(folder, dtype, "mlx").slow is None


@needs_library
def test_what_is_loaded() -> None:
    by_default = load_model(demo.MODEL)
    assert by_default.engine.startswith("native int8, ")
    assert load_model(demo.MODEL, None).engine == load_model(demo.MODEL, "int8").engine == by_default.engine
    for options in ({"dtype": "float32"}, {"engine": "mlx"}):
        assert load_model(demo.MODEL, **options).engine == "mlx float32, CPU"
    assert funasr_cli.load("demo").model.engine == by_default.engine
    assert funasr_cli.load("demo", "float32").model.engine == "mlx float32, CPU"
    for dtype in ("auto", None, "int8", "float32"):
        assert load_aligner(demo.MODEL, dtype).engine == "mlx float32, CPU"


def test_unknown_names(folder: Path) -> None:
    for dtype, engine in (("float16", "auto"), ("float16", "mlx"), ("int4", "native"), ("auto", "torch")):
        with refused("option-value"):
            choose_engine(folder, dtype, engine)
