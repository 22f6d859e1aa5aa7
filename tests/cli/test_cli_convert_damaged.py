"""Damaged, hostile and foreign checkpoints in every layout: exit code, error code, values, nothing written.

The tables are in `support/damaged.py`. More hostile pickles: `unit/test_pickles.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoints import write_checkpoint
from support.damage import WEIGHTS, Change, state_yaml, tensor, tensors
from support.damaged import BIAS, CHECKS, LAYOUTS, MODEL_PT, NAN, THEIR_BIAS, unlist
from support.layouts import write_mlx_audio, write_transformers
from support.running import Result, funasr, invoke
from support.small import SMALL

import funasr_cli
from funasr_cli import demo

ROWS = [
    pytest.param(layout, *row[1:3], row[3:], id=f"{layout}: {row[0]}")
    for layout, rows in LAYOUTS.items()
    for row in rows
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same small checkpoint in every layout, by layout. Do not change it."""
    folder = tmp_path_factory.mktemp("layouts")
    upstream = write_checkpoint(folder / "FunASR", SMALL)
    return {
        "FunASR": upstream,
        "Transformers": write_transformers(upstream, folder / "Transformers"),
        "shards": write_transformers(upstream, folder / "shards", shards=3),
        "mlx-audio": write_mlx_audio(upstream, folder / "mlx-audio"),
        "ours": funasr_cli.convert(upstream, folder / "ours", dtype="float32", verify="off").folder,
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return kind, size and modification time of everything in a folder, including links and pipes."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_mode, status.st_size, status.st_mtime_ns) for path, status in found}


def assert_readable(result: Result) -> None:
    """Assert that the messages are short and contain no control characters."""
    lines = result.stderr.splitlines()
    assert len(lines) < 20
    assert all(line.isprintable() and len(line) < 700 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "change", "code", "values"), ROWS)
def test_damage(
    layout: str, change: Change, code: str, values: tuple[str, ...], layouts: dict[str, Path], here: Path
) -> None:
    """The damage is reported once and by name. Nothing in it is executed, and nothing is written or left over."""
    change(shutil.copytree(layouts[layout], here / "Nano"))
    before = everything(here)
    result = invoke("convert", "Nano", "out")
    result.assert_error(3, code, "Nano", *values)
    assert_readable(result)
    assert everything(here) == before


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        ("FunASR", "code in the old format"),
        ("FunASR", "pipe"),
        ("Transformers", "absurd shape"),
        ("ours", "truncated"),
    ],
)
def test_damage_in_a_process(layout: str, what: str, layouts: dict[str, Path], here: Path) -> None:
    """No library prints its own messages."""
    [(_, change, code, *values)] = [row for row in LAYOUTS[layout] if row[0] == what]
    change(shutil.copytree(layouts[layout], here / "Nano"))
    before = everything(here)
    result = funasr("convert", "Nano", "out", cwd=here)
    result.assert_error(3, code, *values)
    assert len(result.stderr.splitlines()) <= 2
    assert everything(here) == before


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_undamaged_checkpoints_convert(layout: str, layouts: dict[str, Path], here: Path) -> None:
    """This shows that the tests above see only their own changes."""
    shutil.copytree(layouts[layout], here / "Nano")
    assert invoke("convert", "Nano", "out", "--quiet") == Result(0, "out\n", "")


GOOD: list[tuple[str, Change]] = [
    ("merged LoRA", state_yaml(llm_conf__use_lora=True, llm_conf__lora_conf={"r": 4, "lora_alpha": 8})),
    ("other switches", state_yaml(
        llm_conf__freeze=False, llm_conf__activation_checkpoint=True, audio_encoder_conf__dropout_rate=0.5,
        audio_encoder_conf__freeze_layer_num=3, audio_adaptor_conf__freeze=False, detect_language=True,
    )),
    ("no CTC decoder stated", state_yaml(ctc_decoder=None)),
    ("PEFT's names", tensors(lambda found: found.update({
        name.replace("llm.", "llm.base_model.model.").replace("q_proj.", "q_proj.base_layer."): found.pop(name)
        for name in list(found)
    }), MODEL_PT)),
    ("compiled", tensors(lambda found: found.update({
        f"module._orig_mod.{name}": found.pop(name) for name in list(found)
    }), MODEL_PT)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("change", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_tensors_decide(change: Change, layouts: dict[str, Path], here: Path) -> None:
    """Training switches and the prefixes of wrapper modules do not matter: only the tensors decide."""
    change(shutil.copytree(layouts["FunASR"], here / "Nano"))
    assert invoke("convert", "Nano", "out", "--dtype", "float32", "--verify", "off", "-q") == Result(
        0, "out\n", ""
    )
    found, expected = (load_file(folder / WEIGHTS) for folder in (here / "out", layouts["ours"]))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_folder_of_adapters(here: Path) -> None:
    """The files are those that PEFT's own save_pretrained writes."""
    (here / "Nano").mkdir()
    (here / "Nano/adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    invoke("convert", "Nano", "out").assert_error(3, "lora-unmerged", "adapter_config.json")


def test_an_earlier_conversion_survives(layouts: dict[str, Path], here: Path) -> None:
    """Here the damage is only discovered while the weights are being written."""
    tensor(THEIR_BIAS, NAN)(shutil.copytree(layouts["Transformers"], here / "Nano"))
    shutil.copytree(layouts["ours"], here / "out")
    before = everything(here)
    invoke("convert", "Nano", "out", "--force").assert_error(3, "model-damaged", BIAS)
    assert everything(here) == before


@pytest.fixture(scope="module")
def quantized(layouts: dict[str, Path]) -> Path:
    out = layouts["ours"].with_name("quantized")
    return funasr_cli.convert(layouts["ours"], out, quantize="4", verify="off").folder


@pytest.mark.parametrize(
    ("change", "values"), [(row[1], row[2:]) for row in CHECKS], ids=[row[0] for row in CHECKS]
)
def test_check(change: Change, values: tuple[str, ...], quantized: Path, here: Path) -> None:
    change(shutil.copytree(quantized, here / "Nano"))
    before = everything(here)
    result = invoke("convert", "--check", "./Nano")
    result.assert_fails(3, "error", *values)
    assert_readable(result)
    assert everything(here) == before


def test_check_of_an_edited_model_card(quantized: Path, here: Path) -> None:
    """A model card is meant to be edited, so this is not an error."""
    shutil.copytree(quantized, here / "Nano")
    whole = invoke("convert", "--check", "./Nano").stdout
    files = len(os.listdir("Nano")) - 1
    listed = f"SHA-256 of {files} files: as listed in SHA256SUMS\n"
    assert listed in whole
    (here / "Nano/README.md").write_text("mine")
    edited = f"SHA-256 of {files - 1} files: as listed in SHA256SUMS\nnote: README.md has been edited since\n"
    assert invoke("convert", "--check", "./Nano") == Result(0, whole.replace(listed, edited), "")


def test_check_of_a_list_without_the_vocabulary_of_a_ctc_head(here: Path) -> None:
    unlist("multilingual.tiktoken")(shutil.copytree(demo.MODEL, here / "Demo"))
    invoke("convert", "--check", "./Demo").assert_fails(3, "multilingual.tiktoken: SHA256SUMS")
