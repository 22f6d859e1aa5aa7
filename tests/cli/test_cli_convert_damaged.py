"""Damaged, hostile and foreign checkpoints in every layout: exit code, exactly what is said, and nothing written.

The tables lie in `damaged.py`. More of FunASR's layout: `test_cli_convert_errors.py`; of single files:
`unit/test_untrusted.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.damage import WEIGHTS, Change, first_value, tensor
from support.damaged import (
    BIAS,
    CHECKS,
    DENSE,
    INSTEAD,
    LAYOUTS,
    NO_NUMBERS,
    SOURCE_AGAIN,
    THEIR_BIAS,
    UNLISTED,
    not_whole,
    unlist,
)
from support.layouts import write_mlx_audio, write_transformers
from support.running import Result, funasr, invoke
from support.small import SMALL
from test_cli_errors import said
from test_cli_input_errors import assert_ends

import funasr_cli
from funasr_cli import demo

ROWS = [
    pytest.param(layout, *row[1:], id=f"{layout}: {row[0]}") for layout, rows in LAYOUTS.items() for row in rows
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small checkpoint in every layout, by its name. Not to be changed."""
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
    """What lies in a folder, links and pipes too: kind, size and time of the last change."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_mode, status.st_size, status.st_mtime_ns) for path, status in found}


def in_full(message: str) -> str:
    """With the name of the checkpoint in front, where a path is meant."""
    return f"Nano{message}" if message[0] in ":/" else message


@pytest.mark.parametrize(("layout", "change", "message", "hint"), ROWS)
def test_damage(
    layout: str, change: Change, message: str, hint: str, layouts: dict[str, Path], here: Path
) -> None:
    """Said once, by name; nothing in it has been executed, and nothing is written or left behind."""
    change(shutil.copytree(layouts[layout], here / "Nano"))
    before = everything(here)
    assert_ends(invoke("convert", "Nano", "out"), 3, "", said(in_full(message), hint))
    assert everything(here) == before


def test_the_tables_are_long() -> None:
    """Of all kinds that the project's issue lists, at least forty."""
    assert len({row.id for row in ROWS}) == len(ROWS) > 90


@pytest.mark.parametrize(
    ("layout", "what"),
    [
        ("FunASR", "code in the old format"), ("FunASR", "a pipe"), ("FunASR", "aliases"),
        ("Transformers", "Whisper"), ("Transformers", "absurd shape"), ("shards", "a way up"),
        ("mlx-audio", "cut"), ("ours", "not a number"),
    ],
)  # fmt: skip
def test_damage_in_a_process(layout: str, what: str, layouts: dict[str, Path], here: Path) -> None:
    """One of each kind."""
    [(_, change, message, hint)] = [row for row in LAYOUTS[layout] if row[0] == what]
    change(shutil.copytree(layouts[layout], here / "Nano"))
    before = everything(here)
    assert_ends(funasr("convert", "Nano", "out", cwd=here), 3, "", said(in_full(message), hint))
    assert everything(here) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_damaged(layout: str, layouts: dict[str, Path], here: Path) -> None:
    """So that the tests above see what they changed."""
    shutil.copytree(layouts[layout], here / "Nano")
    assert invoke("convert", "Nano", "out", "--quiet") == Result(0, "out\n", "")


def test_an_earlier_conversion_survives(layouts: dict[str, Path], here: Path) -> None:
    """Damage that only shows while the weights are being written."""
    tensor(THEIR_BIAS, first_value(float("nan")))(shutil.copytree(layouts["Transformers"], here / "Nano"))
    shutil.copytree(layouts["ours"], here / "out")
    before = everything(here)
    stderr = said(f"Nano/{WEIGHTS}: {BIAS} {NO_NUMBERS}", "it is damaged")
    assert invoke("convert", "Nano", "out", "--force") == Result(3, "", stderr)
    assert everything(here) == before


@pytest.fixture(scope="module")
def quantized(layouts: dict[str, Path]) -> Path:
    out = layouts["ours"].with_name("quantized")
    return funasr_cli.convert(layouts["ours"], out, quantize="4", verify="off").folder


@pytest.mark.parametrize(
    ("change", "message", "hint"), [row[1:] for row in CHECKS], ids=[row[0] for row in CHECKS]
)
def test_check(change: Change, message: str, hint: str, quantized: Path, here: Path) -> None:
    change(shutil.copytree(quantized, here / "Nano"))
    before = everything(here)
    result = invoke("convert", "--check", "./Nano")
    said_of = result.stderr.replace("error[model-damaged]:", "error:", 1)
    assert_ends(Result(result.exit_code, result.stdout, said_of), 3, "", said(in_full(message), hint))
    assert everything(here) == before


def test_check_of_an_edited_model_card(quantized: Path, here: Path) -> None:
    """It is everyone's to edit."""
    shutil.copytree(quantized, here / "Nano")
    whole = invoke("convert", "--check", "./Nano").stdout
    files = len(os.listdir("Nano")) - 1
    listed = f"SHA-256 of {files} files: as listed\n"
    assert listed in whole
    (here / "Nano/README.md").write_text("mine")
    edited = f"SHA-256 of {files - 1} files: as listed\nnote: README.md has been edited since\n"
    assert invoke("convert", "--check", "./Nano") == Result(0, whole.replace(listed, edited), "")


def test_check_of_a_list_without_the_vocabulary_of_a_ctc_head(here: Path) -> None:
    unlist("multilingual.tiktoken")(shutil.copytree(demo.MODEL, here / "Nano"))
    message = in_full(not_whole(f"multilingual.tiktoken: {UNLISTED}"))
    result = invoke("convert", "--check", "./Nano")
    result.assert_error(3, "model-damaged", message, SOURCE_AGAIN)


def test_check_without_a_list(quantized: Path, here: Path) -> None:
    shutil.copytree(quantized, here / "Nano")
    (here / "Nano/SHA256SUMS").unlink()
    unlisted = [f"{name}: {UNLISTED}" for name in (WEIGHTS, "config.json", "tokenizer.json")]
    message = in_full(not_whole("\n  ".join(unlisted)))
    result = invoke("convert", "--check", "./Nano")
    result.assert_error(3, "model-damaged", message, SOURCE_AGAIN)


def test_a_quantized_model_is_no_source(quantized: Path, here: Path) -> None:
    """Nothing is quantized twice."""
    shutil.copytree(quantized, here / "Nano")
    assert invoke("convert", "Nano", "out") == Result(3, "", said(f"Nano/{WEIGHTS}: {DENSE}", INSTEAD))
    assert os.listdir(here) == ["Nano"]
