"""Vocabularies that come with checkpoints: the tokenizer of a decoder, and the labels of a CTC branch.

One that is missing, damaged or another model's is a `ModelError`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, quoted, read_limited, unreadable
from funasr_cli.errors import ModelError
from funasr_cli.vocabulary import CTCVocabulary

TOKENIZER_LIMIT_BYTES = 1 << 25  # Qwen3's tokenizer.json has 11 MB
CTC_VOCABULARY_LIMIT_BYTES = 1 << 24
ANOTHERS = "it is another model's"
PROBE = "a 1, 你好"  # what a tokenizer has to be able to read
# Of what a tokenizer may consist. Some other parts replace each letter by any number, again and again, and the
# library ends the process where memory runs out.
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
        tokenizer.no_truncation()  # a prompt is taken as it is, whatever the file says
        tokenizer.no_padding()
        highest = max([*tokenizer.get_vocab().values(), *tokenizer.encode(PROBE).ids])
    except (ModelError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a bare Exception, or a panic of the Rust library, which is not even one
        raise unreadable(path, error, DAMAGED_HINT) from error
    if highest >= vocab_size:  # such a row would be read from foreign memory
        message = f"{path}: has token {highest}, but the decoder only {vocab_size}"
        raise ModelError(message, ANOTHERS, code="tokenizer-mismatch")
    return tokenizer


def _refuse_unknown(content: dict[str, Any], path: Path) -> None:
    kinds = [content["model"]["type"], *_kinds([content.get(part) for part in PARTS])]
    unknown = [kind for kind in kinds if kind not in KNOWN_PARTS]
    if unknown or len(kinds) > MOST_PARTS:
        what = quoted(unknown[0]) if unknown else f"{len(kinds)} parts"
        hint = "copy the tokenizer of Qwen3"
        raise ModelError(f"{path}: unlike Qwen's tokenizer: {what}", hint, code="model-unsupported")


def _kinds(part: Any) -> Iterator[Any]:
    """The types of a part and of those in it."""
    if isinstance(part, dict) and "type" in part:
        yield part["type"]
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _kinds(inner)


def read_ctc_vocabulary(path: Path) -> CTCVocabulary:
    """Read a ``multilingual.tiktoken``."""
    content = read_limited(path, CTC_VOCABULARY_LIMIT_BYTES)
    try:
        return CTCVocabulary(content.decode("ascii"))
    except ValueError as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
