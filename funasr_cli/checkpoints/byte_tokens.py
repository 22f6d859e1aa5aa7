"""Tables of a vocabulary's byte tokens and special tokens, read from a tokenizer or from a converted model.

Tokens of bytes are written in GPT-2's alphabet, as in a ``tokenizer.json``; special tokens without their marks.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.checkpoint import read_small_json
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, read_json, unreadable
from funasr_cli.checkpoints.vocabularies import TOKENIZER_LIMIT_BYTES, VOCABULARY_HINT
from funasr_cli.errors import ModelError
from funasr_cli.vocabulary import TAG, ByteVocabulary

Tables = tuple[dict[str, int], dict[str, int]]  # ids of tokens, and of special tokens
MALFORMED = (KeyError, TypeError, ValueError, AttributeError)


def of_tokenizer(path: Path) -> Tables:
    """Return the tokens and special tokens in a ``tokenizer.json``, whose merges follow from the tokens' order."""
    content = read_json(path, TOKENIZER_LIMIT_BYTES)
    try:
        added = [(TAG.fullmatch(str(each["content"])), int(each["id"])) for each in content["added_tokens"]]
        special = {name[1]: token_id for name, token_id in added if name}
        tokens = _checked(content["model"]["vocab"])
    except MALFORMED as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    ids = set(special.values())  # some files list a special token among the others as well
    return {token: token_id for token, token_id in tokens.items() if token_id not in ids}, special


def to_text(tokens: Mapping[str, int], special: Mapping[str, int]) -> str:
    """Return the content of a converted model's file."""
    return json.dumps({"tokens": tokens, "special": special}, ensure_ascii=False, indent=0)


def read_tables(
    name: str, files: Mapping[str, Path], texts: Mapping[str, str], vocab_size: int, required: Collection[str]
) -> Tables:
    """Read the tables of a converted model from the file of this name, or from text not written yet.

    Raises:
        ModelError: they are damaged, lack a special token that is required, or have more tokens than the model.
    """
    where = files.get(name, Path(name))
    content = read_small_json(files, texts, name, TOKENIZER_LIMIT_BYTES)
    try:
        tokens, special = _checked(content["tokens"]), _checked(content["special"])
        ByteVocabulary(tokens, special)  # raises if a token is not in GPT-2's alphabet
        highest = max([*tokens.values(), *special.values()])
    except MALFORMED as error:
        raise unreadable(where, error, DAMAGED_HINT) from error
    missing = sorted(set(required) - special.keys())
    problem = f"lacks <|{missing[0]}|>" if missing else ""
    if highest >= vocab_size:
        problem = f"has token {highest}, but the decoder has only {vocab_size} tokens"
    if problem:
        raise ModelError(f"{where}: {problem}", VOCABULARY_HINT, code="tokenizer-mismatch")
    return tokens, special


def _checked(content: Any) -> dict[str, int]:
    """Check a table of ids by token, which may come from a stranger's file."""
    tokens = dict(content)
    if not all(type(token_id) is int and token_id >= 0 for token_id in tokens.values()):
        raise ValueError("a token's id is not a whole number")
    return tokens
