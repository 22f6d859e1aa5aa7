"""CT-Transformer checkpoints in the layout of the releases, random or taught; and a model without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from funasr_cli.families.ct_punc.model import CTPunctuation

LABELS = ["<unk>", "_", "，", "。", "？", "、"]
SPECIAL = ["<blank>", "<s>", "</s>"]
CHARACTERS = "我想问在滨海新区有房今天气怎么样你好世界的是不了人们这个大来说到时地"
WORDS = ("hello", "world", "this", "is", "a", "test", "ok", "don't", "42")
CHINESE_WORDS = ("我们", "今天", "天气", "世界", "怎么样", "不是")
VOCABULARY = [*SPECIAL, *dict.fromkeys(CHARACTERS), *CHINESE_WORDS, *WORDS, "<unk>"]


@dataclass(frozen=True)
class PunctuationSpec:
    """Sizes of a checkpoint."""

    width: int = 32
    heads: int = 4
    ffn_dim: int = 64
    blocks: int = 2
    seed: int = 0
    words: bool = False  # whether there is a `jieba_usr_dict`


def upstream_config(spec: PunctuationSpec) -> dict[str, Any]:
    """Return the content of ``config.yaml``, with the release's keys."""
    return {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0, "embed_unit": spec.width, "att_unit": spec.width, "dropout_rate": 0.1,
            "punc_list": LABELS, "punc_weight": [1.0] * len(LABELS), "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "input_size": spec.width, "output_size": spec.width, "attention_heads": spec.heads,
            "linear_units": spec.ffn_dim, "num_blocks": spec.blocks, "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1, "attention_dropout_rate": 0.0, "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True, "kernel_size": 11,
            "sanm_shfit": 0, "selfattention_layer_type": "sanm", "padding_idx": 0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }  # fmt: skip


def random_tensors(spec: PunctuationSpec) -> dict[str, Any]:
    """Return tensors as PyTorch draws them, with a head that chooses every mark somewhere."""
    import torch

    torch.manual_seed(spec.seed)
    found: dict[str, Any] = {"embed.weight": torch.randn(len(VOCABULARY), spec.width)}

    def put(name: str, module: torch.nn.Module) -> None:
        found.update({f"{name}.{key}": value.detach().clone() for key, value in module.named_parameters()})

    width, names = spec.width, ["encoders0.0", *(f"encoders.{number}" for number in range(spec.blocks - 1))]
    for name in names:
        layer = f"encoder.{name}"
        put(f"{layer}.self_attn.linear_q_k_v", torch.nn.Linear(width, 3 * width))
        put(f"{layer}.self_attn.linear_out", torch.nn.Linear(width, width))
        put(f"{layer}.self_attn.fsmn_block", torch.nn.Conv1d(width, width, 11, groups=width, bias=False))
        put(f"{layer}.feed_forward.w_1", torch.nn.Linear(width, spec.ffn_dim))
        put(f"{layer}.feed_forward.w_2", torch.nn.Linear(spec.ffn_dim, width))
        put(f"{layer}.norm1", torch.nn.LayerNorm(width))
        put(f"{layer}.norm2", torch.nn.LayerNorm(width))
    put("encoder.after_norm", torch.nn.LayerNorm(width))
    put("decoder", torch.nn.Linear(width, len(LABELS)))
    found["decoder.weight"] *= 3
    found["decoder.bias"] += torch.tensor([-9.0, 0.5, 0, 0, 0, 0])
    return found


def taught_tensors(spec: PunctuationSpec, marks: Mapping[str, str]) -> dict[str, Any]:
    """Return tensors with which the mark after a token depends only on the token: none unless it is in `marks`."""
    import torch

    found = {name: torch.zeros_like(value) for name, value in random_tensors(spec).items()}
    found["encoder.after_norm.weight"] += 1
    found["decoder.weight"][range(len(LABELS)), range(len(LABELS))] = 1.0
    for number, token in enumerate(VOCABULARY):
        found["embed.weight"][number, LABELS.index(marks.get(token, "_"))] = 50.0
    return found


def write_punctuation(
    folder: Path, spec: PunctuationSpec | None = None, marks: Mapping[str, str] | None = None
) -> Path:
    """Write a checkpoint, creating the folder if needed; with `marks`, one that `taught_tensors` describes."""
    import torch

    spec = spec or PunctuationSpec()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(spec) if marks is None else taught_tensors(spec, marks)
    torch.save(tensors, folder / "model.pt")
    (folder / "tokens.json").write_text(json.dumps(VOCABULARY, ensure_ascii=False), encoding="utf-8")
    content = yaml.safe_dump(upstream_config(spec), allow_unicode=True, sort_keys=False)
    (folder / "config.yaml").write_text(content, encoding="utf-8")
    metas: dict[str, Any] = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
    }
    if spec.words:
        lines = "".join(f"{word} 100000\n" for word in CHINESE_WORDS)
        (folder / "jieba_usr_dict").write_text(lines, encoding="utf-8")
        metas["jieba_usr_dict"] = "jieba_usr_dict"
    stated = {"framework": "pytorch", "task": "punctuation", "model": {"type": "funasr"}, "file_path_metas": metas}
    (folder / "configuration.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


class GuessingPunctuation(CTPunctuation):
    """A model without a network. Its labels depend on all tokens of a piece, so that another cut changes them.

    With `silence` near 1, marks are rare.
    """

    def __init__(self, silence: float = 0.5, words: Sequence[str] = ()):
        self.name, self.label_names, self.network = "owner/Guessing", tuple(LABELS), None
        self._ids = {token: number for number, token in enumerate(VOCABULARY)}
        self._words = dict.fromkeys(words, 0)
        self._silence = silence

    def logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        found = []
        for row in rows:
            draw = np.random.default_rng([len(row), *row])
            logits = draw.random((len(row), len(LABELS)))
            logits[:, 1] += 2 * (draw.random(len(row)) < self._silence)
            found.append(logits)
        return found
