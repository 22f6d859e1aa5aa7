"""Checkpoints of a CT-Transformer that are refused, and the lookup of table rows in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.errors import refused
from support.punctuation import VOCABULARY, PunctuationSpec, write_punctuation
from support.small import convert, edit_json

from funasr_cli.checkpoints.tables import open_table
from funasr_cli.families.ct_punc.model import CTPunctuation
from funasr_cli.families.load import load_punctuation
from funasr_cli.families.open import open_checkpoint, open_model
from funasr_cli.hubs.repository import wanted

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_punctuation(tmp_path / "source")


def tokens(folder: Path, listed: Any) -> None:
    (folder / "tokens.json").write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (lambda yaml: yaml.update(encoder="ConformerEncoder"), "model-unsupported", "ConformerEncoder"),
        (lambda yaml: yaml["encoder_conf"].update(input_layer="conv2d"), "model-unsupported", "input_layer"),
        (lambda yaml: yaml["encoder_conf"].update(attention_heads=5), "model-config", "5 heads"),
        (lambda yaml: yaml["encoder_conf"].update(input_size=16), "model-config", "16"),
        (lambda yaml: yaml["encoder_conf"].update(sanm_shfit=6), "model-config", "6"),
        (lambda yaml: yaml["model_conf"].update(att_unit=16), "model-unsupported", "att_unit"),
        (lambda yaml: yaml["model_conf"].update(sentence_end_id=4), "model-unsupported", "sentence_end_id"),
        (lambda yaml: yaml["model_conf"].update(punc_list=["<unk>", "_", "!"]), "model-config", "!"),
        (lambda yaml: yaml["model_conf"].update(punc_list=[1, 2]), "model-config", "punc_list"),
        (lambda yaml: yaml["model_conf"].pop("punc_list"), "model-config", "punc_list"),
        (lambda yaml: yaml.update(model="CTTransformerStreaming"), "model-unsupported", "CTTransformerStreaming"),
    ],
)
def test_configurations(source: Path, change: Change, code: str, named: str) -> None:
    path = source / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with refused(code, "config.yaml", named):
        open_checkpoint(source, "source")


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        ({"a": 1}, "model-damaged"), ([1, 2], "model-damaged"), (VOCABULARY[:-1], "tokenizer-mismatch"),
        ([*VOCABULARY, "我"], "tokenizer-mismatch"), ([*VOCABULARY, "new"], "model-misfit"),
        ([], "tokenizer-mismatch"),
    ],
)  # fmt: skip
def test_vocabularies(source: Path, tmp_path: Path, listed: Any, code: str) -> None:
    """Not a list of texts, without <unk>, with a token twice, of another length than the table."""
    tokens(source, listed)
    with refused(code):
        convert(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_converted_model_with_another_vocabulary(source: Path, tmp_path: Path) -> None:
    model = convert(source, tmp_path / "model").folder
    tokens(model, VOCABULARY[1:])
    with refused("tokenizer-mismatch", "tokens.json"):
        load_punctuation(model)
    (model / "tokens.json").unlink()
    with refused("model-missing", "tokens.json"):
        load_punctuation(model)


@pytest.mark.parametrize("change", [{"labels": ["，"]}, {"vocab_size": 0}, {"words": 1}])
def test_a_converted_model_with_another_configuration(
    source: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    model = convert(source, tmp_path / "model").folder
    edit_json(model / "config.json", lambda content: content.update(change))
    with refused("model-config", next(iter(change))):
        open_model(model)


@pytest.mark.parametrize(("dtype", "stored"), [("float32", "float32"), ("bfloat16", "float16")])
def test_rows_are_looked_up_in_the_file(source: Path, tmp_path: Path, dtype: str, stored: str) -> None:
    import torch

    table = torch.load(source / "model.pt", weights_only=True)["embed.weight"].numpy()
    folder = convert(source, tmp_path / "model", dtype=dtype).folder
    opened = open_table(open_model(folder), "embed.weight")
    assert isinstance(opened._values, np.memmap)
    ids = [3, 0, len(VOCABULARY) - 1, 3]
    rows = opened(ids)
    assert (rows.dtype, rows.shape) == (np.float32, (4, 32))
    np.testing.assert_array_equal(rows, table[ids].astype(stored).astype(np.float32))
    of_source = open_table(open_checkpoint(source, "source"), "embed.weight")
    np.testing.assert_array_equal(of_source(ids), table[ids])


def test_conversions_change_few_labels(source: Path, tmp_path: Path) -> None:
    """The default types round the weights."""
    models = []
    for dtype in ("float32", "bfloat16"):
        model = load_punctuation(convert(source, tmp_path / dtype, dtype=dtype).folder)
        assert isinstance(model, CTPunctuation)
        models.append(model)
    ids = np.random.default_rng(1).integers(0, len(VOCABULARY), (20, 50)).tolist()
    exact, rounded = (np.stack(model.logits(ids)).argmax(-1) for model in models)
    assert (exact == rounded).mean() > 0.97


def test_files_to_fetch() -> None:
    names = [
        "model.pt",
        "config.yaml",
        "tokens.json",
        "configuration.json",
        "jieba_usr_dict",
        "jieba.c.dict",
        "a.png",
    ]
    assert set(wanted("funasr/ct-punc", names)) == set(names[:5])


def test_the_word_list(tmp_path: Path) -> None:
    """It says that tokens are words. The place that configuration.json names counts."""
    with_words = open_checkpoint(write_punctuation(tmp_path / "words", PunctuationSpec(words=True)), "words")
    assert with_words.config.words
    assert with_words.notes
    without = open_checkpoint(write_punctuation(tmp_path / "none"), "none")
    assert not without.config.words
    assert not without.notes
