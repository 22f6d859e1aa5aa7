"""Every name and shape of the release, as FunASR's and transformers' own classes have them, through our rules."""

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
    """What FunASR's and transformers' own classes hold at the release's size, with a CTC branch, by layout."""
    folder = tmp_path_factory.mktemp("release")
    write_configuration(folder / "Nano", release_spec(with_ctc=True, adaptor_heads=8))
    shapes = in_reference("write_shapes", folder / "Nano", folder / "shapes.json")
    return {"folder": folder / "Nano", **json.loads(shapes.read_text(encoding="utf-8"))}


def unread(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of these shapes; if one is read after all, it is a zero."""
    return {name: Tensor("bfloat16", tuple(shape), lambda: mx.zeros(1)) for name, shape in shapes.items()}


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def release_config(folder: Path, *, ctc: bool) -> FunASRNanoConfig:
    """As the configuration in the folder has it; that of the release, but for the token that ends a text."""
    options, llm = read_configuration(folder)
    config = nano_config(options, llm, ctc=ctc, languages=NANO_LANGUAGES, where=str(folder))
    assert dataclasses.replace(config, ctc=None, stop_token_ids=RELEASE.stop_token_ids) == RELEASE
    return config


@pytest.mark.parametrize(("ctc", "count"), [(False, 1261), (True, 1347)])
def test_every_tensor_of_the_release(release_shapes: dict[str, Any], ctc: bool, count: int) -> None:
    """The lists are those of FunASR's own class."""
    upstream = {
        name: shape for name, shape in release_shapes["FunASR"].items() if ctc or not names.has_ctc([name])
    }
    assert len(upstream) == count
    config = release_config(release_shapes["folder"], ctc=ctc)
    mapped = keymap.translate(unread(upstream), names.FUNASR, "list", tied=names.tied(config))
    assert shapes_of(mapped) == keymap.model_shapes(FunASRNano(config))


def test_every_tensor_of_the_release_in_transformers_layout(release_shapes: dict[str, Any]) -> None:
    """The list is that of transformers' own class."""
    theirs = release_shapes["Transformers"]
    assert len(theirs) == 1540
    encoder = RELEASE.encoder
    spell = spelling(encoder.blocks, encoder.tp_blocks)
    mapped = keymap.translate(unread(theirs), names.TRANSFORMERS, "list", tied=names.tied(RELEASE), **spell)
    assert shapes_of(mapped) == keymap.model_shapes(FunASRNano(RELEASE))


@pytest.mark.parametrize("ctc", [False, True])
def test_the_checkpoints_of_these_tests_have_those_names(
    release_shapes: dict[str, Any], tmp_path: Path, ctc: bool
) -> None:
    """At another width."""
    spec = CheckpointSpec(with_ctc=ctc)
    made = make_tensors(spec, write_configuration(tmp_path, spec)).keys()
    assert made == {name for name in release_shapes["FunASR"] if ctc or not names.has_ctc([name])}
