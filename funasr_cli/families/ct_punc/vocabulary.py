"""The vocabulary of a CT-Transformer: ``tokens.json``, a list of tokens in the order of their ids."""

import json
from collections.abc import Mapping
from pathlib import Path

from funasr_cli.checkpoints.pieces import TOKENS_FILE
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, read_limited, unreadable
from funasr_cli.checkpoints.vocabularies import VOCABULARY_HINT
from funasr_cli.errors import ModelError

LIMIT_BYTES = 1 << 25  # the 471,067 tokens of ct-punc take 8.3 MB
UNKNOWN = "<unk>"  # the token that stands for all others


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read the id of each token.

    Raises:
        ModelError: the file is missing or damaged, a token is listed twice, or `UNKNOWN` is missing.
    """
    content = read_limited(path, LIMIT_BYTES)
    try:
        tokens = json.loads(content)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("not a list of strings")
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens) or UNKNOWN not in ids:
        problem = f"lacks {UNKNOWN}" if UNKNOWN not in ids else "lists a token twice"
        raise ModelError(f"{path}: {problem}", VOCABULARY_HINT, code="tokenizer-mismatch")
    return ids


def converted_vocabulary(files: Mapping[str, Path], entries: int) -> dict[str, int]:
    """Read the vocabulary of a checkpoint; raise a `ModelError` unless it has as many tokens as the table rows."""
    path = files[TOKENS_FILE]
    ids = read_vocabulary(path)
    if len(ids) != entries:
        problem = f"has {len(ids)} tokens, but the model has {entries}"
        raise ModelError(f"{path}: {problem}", VOCABULARY_HINT, code="tokenizer-mismatch")
    return ids
