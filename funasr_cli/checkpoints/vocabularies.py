"""Vocabularies of checkpoints: the decoder's tokenizer, and the labels of the CTC branch.

A vocabulary that is missing, damaged or belongs to another model raises a `ModelError`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, quoted, read_limited, unreadable
from funasr_cli.errors import ModelError
from funasr_cli.vocabulary import MARKS, CTCVocabulary

TOKENIZER_LIMIT_BYTES = 1 << 25  # Qwen3's tokenizer.json takes 11 MB
CTC_VOCABULARY_LIMIT_BYTES = 1 << 24
VOCABULARY_HINT = "the file belongs to another model: copy the right one"
PROBE = "a 1, 你好"  # text that every tokenizer must be able to encode
# Allowed components of a tokenizer. Some others multiply the text until memory runs out, and the
# library then aborts the process.
KNOWN_PARTS = frozenset(
    "BPE NFC NFD NFKC NFKD Lowercase Sequence Split Digits ByteLevel TemplateProcessing ByteFallback Fuse".split()
)
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MOST_PARTS = 16


def read_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """Read a ``tokenizer.json`` for a decoder with ``vocab_size`` embeddings."""
    content = read_limited(path, TOKENIZER_LIMIT_BYTES)
    try:
        _refuse_unknown(json.loads(content), path)
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_truncation()  # never change a prompt, regardless of the file
        tokenizer.no_padding()
        highest = max([*tokenizer.get_vocab().values(), *tokenizer.encode(PROBE).ids])
    except (ModelError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the Rust library is not an Exception
        raise unreadable(path, error, DAMAGED_HINT) from error
    if highest >= vocab_size:  # its embedding would be read from beyond the matrix
        message = f"{path}: has token {highest}, but the decoder has only {vocab_size} tokens"
        raise ModelError(message, VOCABULARY_HINT, code="tokenizer-mismatch")
    return tokenizer


def _refuse_unknown(content: dict[str, Any], path: Path) -> None:
    kinds = [content["model"]["type"], *_kinds([content.get(part) for part in PARTS])]
    unknown = [kind for kind in kinds if kind not in KNOWN_PARTS]
    if unknown or len(kinds) > MOST_PARTS:
        what = quoted(unknown[0]) if unknown else f"{len(kinds)} parts"
        hint = "copy the tokenizer of Qwen3"
        raise ModelError(f"{path}: unsupported tokenizer ({what})", hint, code="model-unsupported")


def _kinds(part: Any) -> Iterator[Any]:
    """Yield the types of a component and of all components inside it."""
    if isinstance(part, dict) and "type" in part:
        yield part["type"]
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _kinds(inner)


def tokenizer_problems(path: Path, vocab_size: int, stops: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield which of the prompt's control tokens and of the stop tokens a ``tokenizer.json`` lacks.

    Each problem is preceded by the file's name.
    """
    tokenizer = read_tokenizer(path, vocab_size)
    for mark in MARKS:
        if tokenizer.token_to_id(mark) is None:
            yield path.name, f"has no token {mark}"
    for token_id in stops:
        if tokenizer.id_to_token(token_id) is None:
            yield path.name, f"has no token {token_id}, which is the model's stop token"


def read_ctc_vocabulary(path: Path) -> CTCVocabulary:
    """Read a ``multilingual.tiktoken``."""
    content = read_limited(path, CTC_VOCABULARY_LIMIT_BYTES)
    try:
        return CTCVocabulary(content.decode("ascii"))
    except ValueError as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
