"""Every tensor name and shape of the release, from FunASR's and Transformers' own classes, read with our rules."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import CheckpointSpec, release_spec, write_configuration
from support.layouts import read_configuration
from support.parity.live import in_reference
from support.weights import make_tensors

from funasr_cli.benchmarks.synthetic import RELEASE
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.tensors import Tensor
from funasr_cli.compute.backend import mx
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.families.fun_asr_nano.layout_transformers import spelling
from funasr_cli.families.fun_asr_nano.network import FunASRNano
from funasr_cli.families.fun_asr_nano.upstream import nano_config
from funasr_cli.languages import NANO_LANGUAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release_shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Names and shapes in FunASR's and Transformers' own classes, at release size with a CTC branch, by layout."""
    folder = tmp_path_factory.mktemp("release")
    write_configuration(folder / "Nano", release_spec(with_ctc=True, adaptor_heads=8))
    shapes = in_reference("write_shapes", folder / "Nano", folder / "shapes.json")
    return {"folder": folder / "Nano", **json.loads(shapes.read_text(encoding="utf-8"))}


def unread(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return tensors of these shapes without data. If one is read by mistake, it is a zero."""
    return {name: Tensor("bfloat16", tuple(shape), lambda: mx.zeros(1)) for name, shape in shapes.items()}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def release_config(folder: Path, *, ctc: bool) -> FunASRNanoConfig:
    """Return the configuration in the folder, which is the release's except for the stop token."""
    options, llm = read_configuration(folder)
    config = nano_config(options, llm, ctc=ctc, languages=NANO_LANGUAGES, where=str(folder))
    assert dataclasses.replace(config, ctc=None, stop_token_ids=RELEASE.stop_token_ids) == RELEASE
    return config


@pytest.mark.parametrize(("ctc", "count"), [(False, 1261), (True, 1347)])
def test_every_tensor_of_the_release(release_shapes: dict[str, Any], ctc: bool, count: int) -> None:
    """The lists come from FunASR's own class."""
    upstream = {
        name: shape for name, shape in release_shapes["FunASR"].items() if ctc or not names.has_ctc([name])
    }
    assert len(upstream) == count
    config = release_config(release_shapes["folder"], ctc=ctc)
    mapped = keymap.translate(unread(upstream), names.FUNASR, "list", tied=names.tied(config))
    assert shapes_of(mapped) == keymap.model_shapes(FunASRNano(config))


def test_every_tensor_of_the_release_in_transformers_layout(release_shapes: dict[str, Any]) -> None:
    """The list comes from Transformers' own class."""
    theirs = release_shapes["Transformers"]
    assert len(theirs) == 1540
    encoder = RELEASE.encoder
    spell = spelling(encoder.blocks, encoder.tp_blocks)
    mapped = keymap.translate(unread(theirs), names.TRANSFORMERS, "list", tied=names.tied(RELEASE), **spell)
    assert shapes_of(mapped) == keymap.model_shapes(FunASRNano(RELEASE))


@pytest.mark.parametrize("ctc", [False, True])
def test_the_random_checkpoints_have_the_same_names(
    release_shapes: dict[str, Any], tmp_path: Path, ctc: bool
) -> None:
    """Only the width differs."""
    spec = CheckpointSpec(with_ctc=ctc)
    made = make_tensors(spec, write_configuration(tmp_path, spec)).keys()
    assert made == {name for name in release_shapes["FunASR"] if ctc or not names.has_ctc([name])}
