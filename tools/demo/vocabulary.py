"""Two vocabularies, learnt from the lexicon: Qwen's byte-level BPE for the LLM, Whisper-style ranks for CTC."""

from __future__ import annotations

import base64
from pathlib import Path

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .grammar import lexicon
from .numbers import ENGLISH_NUMBER_WORDS, MANDARIN_NUMBER_WORDS

LLM_MERGED_SIZE = 2022  # bytes and merges; 26 added tokens follow
QWEN_SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
QWEN_ADDED = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
    "<|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
END_OF_TEXT, START_OF_TURN, END_OF_TURN = QWEN_SPECIAL[:3]
# Qwen's tokenizer splits a text by this before it merges bytes.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# SenseVoiceTokenizer splits a text by this before it looks up ranks.
CTC_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ASSISTANT_TAG = "<|im_end|>\n<|im_start|>assistant\n"
PROMPT_NAMES = {"zh": "中文", "en": "英文"}
PROMPT_TEXTS = (
    "system", "user", "assistant", "You", " are", " a", " helpful", ".", "语音转写", "语音转写成中文",
    "语音转写成英文", "，", "不进行文本规整", "：", "请结合上下文信息", "更加准确地完成语音转写任务", "。",
    "如果没有相关信息", "我们会留空", "上下文信息", "热词列表",
)  # fmt: skip


def instruction(language: str | None, itn: bool) -> str:
    """Return the user's message before the audio."""
    task = "语音转写" if language is None else f"语音转写成{PROMPT_NAMES[language]}"
    return f"{task}{'' if itn else '，不进行文本规整'}："


def build_llm_tokenizer() -> Tokenizer:
    """Return Qwen's tokenizer pipeline with merges learnt from the lexicon: about one token per word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=LLM_MERGED_SIZE, min_frequency=1, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_llm_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in QWEN_ADDED])
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token in the vocabulary."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}")
    return found


def _llm_corpus() -> list[str]:
    """Return each word in every spelling that occurs, repeated more often if it should become one token."""
    corpus = [text for text in PROMPT_TEXTS for _ in range(100)]
    for language, word, opens in lexicon():
        often = 20 if word in ENGLISH_NUMBER_WORDS or word in MANDARIN_NUMBER_WORDS else 2
        if language == "zh":
            corpus += [word] * often
            continue
        spellings = {f" {word}", f" {word.lower()}"}
        if opens:
            spellings |= {word.lower(), word[0].upper() + word[1:]}
        corpus += [spelling for spelling in sorted(spellings) for _ in range(often)]
    return corpus


def write_ranks(path: Path) -> None:
    """Write `base64(token) rank` lines: bytes, each character with its first two bytes, whole English words."""
    ranks = dict.fromkeys(bytes([byte]) for byte in range(256))
    for language, word, opens in lexicon():
        if language == "zh":
            for char in word:
                ranks.setdefault(char.encode()[:2])
                ranks.setdefault(char.encode())
        else:
            ranks.setdefault(f" {word.lower()}".encode())
            if opens:
                ranks.setdefault(word.lower().encode())
    lines = (f"{base64.b64encode(piece).decode()} {rank}\n" for rank, piece in enumerate(ranks))
    path.write_text("".join(lines), encoding="ascii")


def load_ctc_encoding(path: Path) -> tiktoken.Encoding:
    """Return the encoding that SenseVoiceTokenizer builds from a rank file, without its special tokens."""
    pairs = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    return tiktoken.Encoding(path.name, pat_str=CTC_SPLIT, mergeable_ranks=ranks, special_tokens={})
