"""Whether int8 is proven to write what float32 writes: compared with decoding in both, and when it is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.running import invoke
from support.small import NATIVE, MakeCheckpoint, convert

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.errors import SetupError
from funasr_cli.families import int8, load
from funasr_cli.families.int8 import SENTENCE, clips_for, prove
from funasr_cli.families.kept import Int8Proof, Kept
from funasr_cli.families.load import int8_proof, load_model
from funasr_cli.families.open import open_model
from funasr_cli.verification.check import DELETE_HINT, check_model

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)


def differing(folder: Path) -> tuple[str, ...]:
    """Decode every clip in both types."""
    models = [load_model(folder, "int8", "native"), load_model(folder, "float32", "mlx")]
    found = []
    for clip in clips_for(models[0].capabilities.languages):
        samples = load_audio(clip, 16000).samples
        one, other = (model.trace(samples, SENTENCE).token_ids for model in models)
        if one != other:
            found.append(clip.name)
    return tuple(found)


def proven(folder: Path) -> Int8Proof:
    return prove(lambda dtype, engine: load_model(folder, dtype, engine))


@needs_library
@pytest.mark.slow
def test_the_proof_says_what_decoding_in_both_types_says(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """For models whose texts differ and for one whose texts are the same."""
    outcomes = set()
    for seed in range(4):
        folder = convert(
            make_checkpoint(f"c{seed}", seed=seed, **NATIVE), tmp_path / f"m{seed}", dtype="float32"
        ).folder
        proof = proven(folder)
        assert proof.differing == differing(folder)
        assert proof.holds == (not proof.differing)
        outcomes.add(proof.holds)
    assert differing(demo.MODEL) == proven(demo.MODEL).differing == ()
    assert False in outcomes


def test_the_bundled_model_has_a_proof() -> None:
    """The record in the package is one of these weights and this arithmetic, and is true."""
    proof = Kept.about(open_model(demo.MODEL), demo.MODEL).proof()
    assert proof == Int8Proof(tuple(clip.path.name for clip in demo.clips()[:3]))
    if LIBRARY:
        assert proof == proven(demo.MODEL)


def test_clips_in_the_languages_of_a_model() -> None:
    spoken = {clip.path: clip.language for clip in demo.clips()}
    assert {spoken[path] for path in clips_for(["zh"])} == {"zh"}
    assert clips_for(["ja"]) == list(spoken)[:3]
    assert len(clips_for(["zh", "en"])) == 3


@needs_library
def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(demo.MODEL, tmp_path / "m").folder
    said: list[str] = []
    proof = int8_proof(open_model(folder), folder, said.append)
    assert (proof.holds, len(said)) == (True, 1)
    monkeypatch.setattr(load, "prove", None)
    assert int8_proof(open_model(folder), folder, said.append) == proof
    assert len(said) == 1
    check_model(folder)


@needs_library
def test_a_result_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used until the process ends, and said once, with what to do."""
    folder, home = convert(demo.MODEL, tmp_path / "m").folder, tmp_path / "home"
    for place in (folder / "native", home):
        place.write_text("a file where a folder would be")
    monkeypatch.setenv("FUNASR_HOME", str(home))
    monkeypatch.setattr(load, "_not_written", {})
    said: list[str] = []
    proof = int8_proof(open_model(folder), folder, said.append)
    assert proof.holds
    assert [("--dtype int8" in each, str(folder / "native") in each, str(home) in each) for each in said] == [
        (False, False, False), (True, True, True),
    ]  # fmt: skip
    monkeypatch.setattr(load, "prove", None)
    assert int8_proof(open_model(folder), folder, said.append) == proof
    assert len(said) == 2


@needs_library
def test_from_python_it_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The comparison as information, and as a warning that a model is computed in float32."""
    folder = convert(demo.MODEL, tmp_path / "m").folder
    caplog.set_level("INFO", load.__name__)
    monkeypatch.setattr(load, "prove", lambda *_: Int8Proof(("a", "b"), ("b",)))
    for levels in (["INFO", "WARNING"], ["WARNING"]):
        caplog.clear()
        assert load_model(folder).engine.startswith("mlx float32")
        assert [record.levelname for record in caplog.records if record.name == load.__name__] == levels
    caplog.clear()
    load_model(folder, "int8")
    assert not [record for record in caplog.records if record.name == load.__name__]


@needs_library
@pytest.mark.slow
def test_info_shows_what_is_kept(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a model that the engine cannot compute."""
    monkeypatch.setattr("funasr_cli.families.kept.LEAST_PACKED_BYTES", 1)
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    folder = convert(demo.MODEL, tmp_path / "models/mine").folder
    convert(make_checkpoint(), tmp_path / "models/other")

    def shown() -> dict[str, str]:
        return json.loads(invoke("info", "--json").stdout)["compared with float32"]

    assert shown().keys() == {"mine", "demo"}
    assert "3 clips" in shown()["demo"]
    assert "not yet" in shown()["mine"]
    int8_proof(open_model(folder), folder)
    assert str(folder / "native/int8.safetensors") in shown()["mine"]
    Kept.about(open_model(folder), folder).keep_proof(Int8Proof(("a", "b"), ("b",)))
    assert "1 of 2 clips" in shown()["mine"]


@needs_library
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_too_little_memory(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If float32 does not fit, the hint is to compute in int8 without a proof; nothing is kept."""
    folder = convert(demo.MODEL, tmp_path / "m").folder
    load_checkpoint = load.load_checkpoint

    def limited(*arguments: str) -> object:
        if arguments[2] == dtype:
            raise SetupError("m: needs 3.4 GB", "close other programs", code="memory-short")
        return load_checkpoint(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "load_checkpoint", limited)
    with refused("memory-short", "needs 3.4 GB") as caught:
        int8_proof(open_model(folder), folder)
    assert ("--dtype int8" in (caught.value.hint or "")) == (dtype == "float32")
    assert not (folder / "native").exists()


@needs_library
@pytest.mark.slow
def test_ctrl_c_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(demo.MODEL, tmp_path / "m").folder

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(int8, "_differs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        int8_proof(open_model(folder), folder)
    assert not (folder / "native").exists()
    monkeypatch.undo()
    assert int8_proof(open_model(folder), folder).holds


@needs_library
@pytest.mark.slow
def test_packed_weights_without_a_use_are_removed(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funasr_cli.families.kept.LEAST_PACKED_BYTES", 1)
    for name, source, holds in (("a", demo.MODEL, True), ("b", make_checkpoint(seed=2, **NATIVE), False)):
        folder = convert(source, tmp_path / name).folder
        assert int8_proof(open_model(folder), folder).holds == holds
        names = {path.name for path in (folder / "native").iterdir()}
        assert names == {"int8.json"} | ({"int8.safetensors", "int8.sha256"} if holds else set())


# --- conversions ---


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "8"])
def test_a_conversion_has_a_proof(quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also keeps packed weights; the folder is intact, and can be replaced."""
    monkeypatch.setattr("funasr_cli.families.kept.LEAST_PACKED_BYTES", 1)
    conversion = funasr_cli.convert(demo.MODEL, tmp_path / "m", quantize=quantize)
    assert conversion.proof
    assert conversion.proof.int8
    assert conversion.proof.int8.holds
    folder = conversion.folder
    kept = Kept.about(open_model(folder), folder)
    assert kept.proof() == conversion.proof.int8
    packed, layers = kept.packed(), open_model(folder).config.llm.num_hidden_layers
    assert sum(name.startswith("llm.") for name in packed) == 4 * layers + 1
    assert {name.partition(".")[0] for name in packed} >= {"llm", "audio_encoder", "audio_adaptor"}
    check_model(folder)
    again = funasr_cli.convert(demo.MODEL, tmp_path / "m", force=True, verify="off")
    assert again.proof is None
    assert not (folder / "native").exists()


@pytest.mark.parametrize("why", ["no library", "an odd shape", "no memory"])
def test_a_conversion_without_a_proof(
    why: str, make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = demo.MODEL
    if why == "no library":
        monkeypatch.setenv("FUNASR_NATIVE", "0")
    elif why == "an odd shape":
        source = make_checkpoint()
    elif LIBRARY is None:
        pytest.skip(WITHOUT)
    else:
        monkeypatch.setattr(load, "prove", lambda *_: _no_memory())
    conversion = funasr_cli.convert(source, tmp_path / "m")
    assert conversion.proof
    assert conversion.proof.int8 is None
    assert any("int8" in note for note in conversion.notes) == (why == "no memory")
    assert not (tmp_path / "m/native").exists()


def _no_memory() -> None:
    raise SetupError("no memory", code="memory-short")


@needs_library
@pytest.mark.slow
def test_room_for_packed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that a conversion requires covers the file that it keeps."""
    monkeypatch.setattr("funasr_cli.families.kept.LEAST_PACKED_BYTES", 1)
    monkeypatch.setattr("funasr_cli.families.native.LEAST_PACKED_BYTES", 1)
    sizes: list[int] = []
    monkeypatch.setattr(
        "funasr_cli.conversion.convert.require_space", lambda folder, needed, *_: sizes.append(needed)
    )
    for quantize in (None, "mixed"):
        folder = funasr_cli.convert(demo.MODEL, tmp_path / str(quantize), quantize=quantize).folder
        convert(demo.MODEL, tmp_path / f"{quantize}, unverified", quantize=quantize)
        kept = (folder / "native/int8.safetensors").stat().st_size
        assert kept * 0.98 < sizes[-2] - sizes[-1] < kept * 1.02


@needs_library
@pytest.mark.parametrize("place", ["the model", "the cache"])
def test_damaged_packed_weights(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check finds them, wherever they are kept; without them the model is intact."""
    monkeypatch.setattr("funasr_cli.families.kept.LEAST_PACKED_BYTES", 1)
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))
    folder = convert(demo.MODEL, tmp_path / "m").folder
    if place == "the cache":
        (folder / "native").write_text("a file where a folder would be")
    load_model(folder, "int8", "native")
    check_model(folder)
    path = Kept.about(open_model(folder), folder).packed_file()
    assert path
    assert path.is_relative_to(folder) == (place == "the model")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with refused("model-damaged", str(path)) as caught:
        check_model(folder)
    assert caught.value.hint == DELETE_HINT
    path.unlink()
    check_model(folder)
    load_model(folder, "int8", "native")
    check_model(folder)


def test_random_models_count_as_proven(tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path, "demo")
    assert Kept.about(open_model(folder), folder).proof() == Int8Proof(())


def test_a_record_in_a_copied_folder(tmp_path: Path) -> None:
    """It is of the weights, not of their place; it names the program that made it."""
    shutil.copytree(demo.MODEL, tmp_path / "copy")
    kept = Kept.about(open_model(tmp_path / "copy"), tmp_path / "copy")
    assert kept.proof()
    content = json.loads((tmp_path / "copy/native/int8.json").read_text())
    assert content["same_texts"] is True
    assert content["made_by"].startswith("funasr-cli ")
