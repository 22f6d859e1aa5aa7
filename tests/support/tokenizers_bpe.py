"""Tokenizers of the random checkpoints: Qwen's byte-level BPE and the CTC branch's rank file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
QWEN_ADDED = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip
CORPUS = (
    "system\nYou are a helpful assistant.\nuser\nassistant\n",
    "语音转写：语音转写成中文：语音转写成英文，不进行文本规整：语音转写成日文：",
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n",
    "**上下文信息：**\n\n\n热词列表：[",
    "中文 英文 粤语 日文 韩文 越南语 印尼语 泰语 法语 德语 西班牙语 葡萄牙语 俄语 阿拉伯语",
    "我想问我在滨海新区有房，开放时间早上九点至下午五点。今天天气怎么样？谢谢大家，我们明天见。",
    "And so my fellow Americans, ask not what your country can do for you, ask what you can do for it.",
    "The quick brown fox jumps over the lazy dog; she'll say it's 1961, isn't it?",
    "これは日本語の文章です。音声認識のテスト。",
)


def write_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Write Qwen's tokenizer files; return the tokenizer as loaded from `tokenizer.json`."""
    _build_tokenizer(vocab_size).save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    added = {
        str(index): {"content": token.content, "lstrip": token.lstrip, "normalized": token.normalized,
                     "rstrip": token.rstrip, "single_word": token.single_word, "special": token.special}
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }  # fmt: skip
    tokenizer_config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": QWEN_SPECIAL[1:], "bos_token": None, "eos_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False, "errors": "replace", "model_max_length": 131072,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }  # fmt: skip
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    return tokenizer


def _build_tokenizer(vocab_size: int) -> Tokenizer:
    """Return Qwen's byte-level BPE pipeline with `vocab_size` ordinary tokens, learnt from `CORPUS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in QWEN_ADDED])
    return tokenizer


def write_rank_file(path: Path, count: int) -> None:
    """Write `count` Whisper-style lines `base64(token) rank`: bytes, byte pairs, then whole characters."""
    characters = [chr(code).encode() for code in (*range(0x4E00, 0xD800), *range(0x3000, 0x4E00))]
    characters += [chr(code).encode() for code in (*range(0x800, 0x3000), *range(0xE000, 0xFFFF))]
    corpus = [char.encode() for text in CORPUS for char in text]
    ranks = dict.fromkeys(bytes([byte]) for byte in range(256))
    for piece in (*corpus, *characters):
        for end in range(2, len(piece) + 1):  # makes each character reachable through its first two bytes
            if len(ranks) < count:
                ranks.setdefault(piece[:end])
    lines = (f"{base64.b64encode(piece).decode()} {rank}\n" for rank, piece in enumerate(ranks))
    path.write_text("".join(lines), encoding="ascii")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the hub files' formatting."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
