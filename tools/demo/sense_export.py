"""Write the small SenseVoice in upstream's layout: model.pt, config.yaml, am.mvn, pieces, configuration.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from .sense_network import SENSE_ENCODER_CONF, Cmvn, SenseNetwork

PIECES_FILE = "chn_jpn_yue_eng_ko_spectok.bpe.model"  # the release's name
CMVN_FILE = "am.mvn"


def export(network: SenseNetwork, pieces: bytes, cmvn: Cmvn, out: Path) -> None:
    """Write the checkpoint. The weights are rounded to bfloat16 only here."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in network.state_dict().items()}
    torch.save(tensors, out / "model.pt")
    (out / "config.yaml").write_text(yaml.safe_dump(upstream_config(), sort_keys=False), encoding="utf-8")
    (out / PIECES_FILE).write_bytes(pieces)
    (out / CMVN_FILE).write_text(cmvn_text(cmvn), encoding="ascii")
    metas = {
        "init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"bpemodel": PIECES_FILE},
        "frontend_conf": {"cmvn_file": CMVN_FILE},
    }  # fmt: skip
    configuration = {
        "framework": "pytorch", "task": "auto-speech-recognition", "model": {"type": "funasr"},
        "pipeline": {"type": "funasr-pipeline"}, "model_name_in_hub": {"ms": "", "hf": ""},
        "file_path_metas": metas,
    }  # fmt: skip
    (out / "configuration.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")


def upstream_config() -> dict[str, Any]:
    """Return the content of `config.yaml`, with the release's keys."""
    return {
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": SENSE_ENCODER_CONF,
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "lfr_m": 7,
            "lfr_n": 6, "cmvn_file": None,
        },
    }  # fmt: skip


def cmvn_text(cmvn: Cmvn) -> str:
    """Return the content of `am.mvn`: a Kaldi network of three layers, as text."""
    width = len(cmvn.shift)
    return (
        f"<Nnet> \n<Splice> {width} {width} \n[ 0 ]\n"
        f"<AddShift> {width} {width} \n<LearnRateCoef> 0 [ {_numbers(cmvn.shift)} ]\n"
        f"<Rescale> {width} {width} \n<LearnRateCoef> 0 [ {_numbers(cmvn.scale)} ]\n</Nnet> \n"
    )


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.7g}" for value in values.tolist())
