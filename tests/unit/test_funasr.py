"""Code shared by all of FunASR's layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.errors import refused

from funasr_cli.checkpoints.funasr import stated_file

RELEASE = {
    "framework": "pytorch",
    "file_path_metas": {
        "init_param": "model.pt", "config": "config.yaml", "frontend_conf": {"cmvn_file": "am.mvn"},
        "tokenizer_conf": {"bpemodel": "chn_jpn_yue_eng_ko_spectok.bpe.model", "token_list": None},
    },
}  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    (folder / "configuration.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_files_named_by_a_release(tmp_path: Path) -> None:
    assert stated_file(tmp_path, "frontend_conf", "cmvn_file") is None  # the file does not exist
    write(tmp_path, RELEASE)
    assert stated_file(tmp_path, "frontend_conf", "cmvn_file") == "am.mvn"
    assert stated_file(tmp_path, "tokenizer_conf", "bpemodel") == "chn_jpn_yue_eng_ko_spectok.bpe.model"
    assert stated_file(tmp_path, "init_param") == "model.pt"
    for keys in (("tokenizer_conf", "token_list"), ("tokenizer_conf", "seg_dict"), ("nothing", "in it")):
        assert stated_file(tmp_path, *keys) is None


@pytest.mark.parametrize(
    "content", [[], {"file_path_metas": 3}, {"file_path_metas": {"a": []}}, {"file_path_metas": {"a": {"b": 3}}}]
)
def test_invalid_names(tmp_path: Path, content: Any) -> None:
    with refused("model-config", tmp_path / "configuration.json"):
        stated_file(write(tmp_path, content), "a", "b")
