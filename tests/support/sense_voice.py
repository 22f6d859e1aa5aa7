"""Random SenseVoiceSmall checkpoints in exactly the layout of the upstream release."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.checkpoints import CheckpointSpec

BPE_FILE = "chn_jpn_yue_eng_ko_spectok.bpe.model"
CMVN_FILE = "am.mvn"
TOKENS_FILE = "tokens.json"
SPACE_ID = 124  # the id that FunASR's timestamps treat as a space
RELEASE_PIECES = 25055
# Ids of the release, without other languages and closing marks.
TAGS = {
    24884: "zh", 24885: "en", 24888: "yue", 24892: "ja", 24896: "ko", 24991: "SER", 24992: "nospeech",
    24993: "Speech", 24995: "BGM", 24997: "Laughter", 24999: "Applause", 25001: "HAPPY", 25002: "SAD",
    25003: "ANGRY", 25004: "NEUTRAL", 25005: "FEARFUL", 25006: "DISGUSTED", 25007: "SURPRISED", 25008: "OTHER",
    25009: "EMO_UNKNOWN", 25010: "Cry", 25011: "Sneeze", 25012: "Breath", 25013: "Cough", 25014: "Sing",
    25015: "Speech_Noise", 25016: "withitn", 25017: "woitn", 25018: "GBG", 25019: "Event_UNK",
}  # fmt: skip
# This package's names of FunASR's tags, written out so that the tables under test are not compared with
# themselves.
EMOTION_NAMES = {
    "HAPPY": "happy", "SAD": "sad", "ANGRY": "angry", "NEUTRAL": "neutral", "FEARFUL": "fearful",
    "DISGUSTED": "disgusted", "SURPRISED": "surprised", "OTHER": "other-emotion", "EMO_UNKNOWN": None,
}  # fmt: skip
SOUND_NAMES = {
    "Speech": "speech", "BGM": "music", "Laughter": "laughter", "Applause": "applause", "Cry": "crying",
    "Sneeze": "sneeze", "Breath": "breath", "Cough": "cough", "Sing": "singing", "Speech_Noise": "noise",
    "GBG": None, "Event_UNK": None,
}  # fmt: skip
LANGUAGE_TAGS = ("zh", "en", "yue", "ja", "ko", "nospeech")
# Each is the concatenation of two existing pieces, so that SentencePiece can reach it by merging.
MERGED = (
    "▁h", "el", "lo", "ello", "▁hello", "▁w", "or", "ld", "orld", "▁world", "he", "llo", "hello", "th", "▁th",
    "in", "ing", "▁t", "▁the", "an", "and", "▁and", "今天", "天气",
)  # fmt: skip
CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzAHTW'.,?!0123456789，。？！你好世界今天气很不错我们开始语音识别こんにちは안녕하세요"
)
# SentencePiece's types of pieces.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
SIZES = CheckpointSpec(
    encoder_dim=128, encoder_ffn_dim=128, encoder_blocks=4, encoder_tp_blocks=2, dtype="float32", seed=4
)


@dataclass(frozen=True)
class SenseVoiceSpec:
    """Options of a random checkpoint."""

    sizes: CheckpointSpec = SIZES  # sizes of the encoder and frontend, and the container
    pieces: int | None = None  # their number, with tags at the release's ids; None: a few, followed by the tags


def piece_texts(count: int | None = None) -> list[str]:
    """Return the pieces by id."""
    texts = ["<unk>", "<s>", "</s>", *dict.fromkeys((*MERGED, *CHARACTERS))]
    known = set(texts)
    rare = (chr(code) for code in range(0x4E00, 0xFFFF) if chr(code) not in known and chr(code).isprintable())
    texts += [next(rare) for _ in range(SPACE_ID - len(texts))]
    texts.append("▁")
    if count is None:
        return texts + [f"<|{tag}|>" for tag in TAGS.values()]
    while len(texts) < count:
        tag = TAGS.get(len(texts))
        texts.append(f"<|{tag}|>" if tag else next(rare))
    return texts


def sentencepiece_model(texts: list[str]) -> bytes:
    """Return a SentencePiece BPE model, in protobuf."""

    def field(number: int, content: bytes) -> bytes:  # length-delimited bytes
        return varint(number << 3 | 2) + varint(len(content)) + content

    def whole(number: int, value: int) -> bytes:
        return varint(number << 3) + varint(value)

    def varint(value: int) -> bytes:
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    def piece(token_id: int, text: str) -> bytes:
        kind = (
            USER_DEFINED if text.startswith("<|") else {0: UNKNOWN, 1: CONTROL, 2: CONTROL}.get(token_id, NORMAL)
        )
        return field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", -token_id) + whole(3, kind)

    trainer = whole(3, 2) + whole(4, len(texts))  # BPE, and the number of pieces
    normaliser = field(1, b"identity") + whole(3, 0)  # no leading space
    pieces = b"".join(field(1, piece(token_id, text)) for token_id, text in enumerate(texts))
    return pieces + field(2, trainer) + field(3, normaliser)


def cmvn_text(shift: np.ndarray, scale: np.ndarray) -> str:
    """Return the text of an ``am.mvn`` file."""
    width = len(shift)

    def component(name: str, values: np.ndarray) -> str:
        numbers = " ".join(f"{value:.7g}" for value in values)
        return f"<{name}> {width} {width} \n<LearnRateCoef> 0 [ {numbers} ]\n"

    splice = f"<Splice> {width} {width} \n[ 0 ]\n"
    return f"<Nnet> \n{splice}{component('AddShift', shift)}{component('Rescale', scale)}</Nnet> \n"


def upstream_config(sizes: CheckpointSpec) -> dict[str, Any]:
    """Return the content of ``config.yaml``, with the release's keys except those for training."""
    return {
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": {
            "output_size": sizes.encoder_dim, "attention_heads": sizes.encoder_heads,
            "linear_units": sizes.encoder_ffn_dim, "num_blocks": sizes.encoder_blocks,
            "tp_blocks": sizes.encoder_tp_blocks, "dropout_rate": 0.1, "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1, "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True, "kernel_size": sizes.kernel_size, "sanm_shfit": sizes.sanm_shift,
            "selfattention_layer_type": "sanm",
        },
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": sizes.sample_rate_hz, "window": sizes.window, "n_mels": sizes.n_mels,
            "frame_length": sizes.frame_length_ms, "frame_shift": sizes.frame_shift_ms, "lfr_m": sizes.lfr_m,
            "lfr_n": sizes.lfr_n, "cmvn_file": None,
        },
    }  # fmt: skip


def write_sense_voice(folder: Path, spec: SenseVoiceSpec | None = None) -> Path:
    """Write the checkpoint that `spec` describes to `folder`, creating it if needed, and return the folder."""
    import torch
    from support.weights import Weights, put_encoder

    spec = spec or SenseVoiceSpec()
    sizes, texts = spec.sizes, piece_texts(spec.pieces)
    folder.mkdir(parents=True, exist_ok=True)
    weights = Weights(sizes)
    put_encoder(weights, "encoder", sizes)
    weights.linear("ctc.ctc_lo", sizes.encoder_dim, len(texts), gain=1.5)
    weights.tensors["ctc.ctc_lo.bias"][0] += 5  # makes about a third of the frames blank
    # As large as normalised features, so that the query rows change the output.
    weights.put("embed.weight", weights.draw(16, sizes.input_dim, std=1.0))
    tensors = {sizes.key_prefix + name: value for name, value in weights.tensors.items()}
    torch.save({sizes.container: tensors} if sizes.container else tensors, folder / "model.pt")
    (folder / BPE_FILE).write_bytes(sentencepiece_model(texts))
    (folder / TOKENS_FILE).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    draw = np.random.default_rng(sizes.seed)
    shift, scale = draw.normal(-11, 1.5, sizes.input_dim), draw.normal(0.3, 0.02, sizes.input_dim)
    (folder / CMVN_FILE).write_text(cmvn_text(shift, scale), encoding="utf-8")
    content = yaml.safe_dump(upstream_config(sizes), sort_keys=False)
    (folder / "config.yaml").write_text(content, encoding="utf-8")
    metas = {
        "init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"bpemodel": BPE_FILE},
        "frontend_conf": {"cmvn_file": CMVN_FILE},
    }  # fmt: skip
    configuration = {"framework": "pytorch", "task": "auto-speech-recognition", "file_path_metas": metas}
    (folder / "configuration.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    return folder
