"""The pieces of a SentencePiece vocabulary, by id: out of its own model, and as plain JSON.

A converted model has them in JSON, so that the SentencePiece library is needed only for converting.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import read_small_json
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, read_limited, unreadable
from funasr_cli.errors import ModelError, SetupError
from funasr_cli.vocabulary import PieceVocabulary

PIECES_FILE = "pieces.json"  # of a converted model
TOKENS_FILE = "tokens.json"  # on ModelScope
LIMIT_BYTES = 1 << 23  # SenseVoice's 25,055 pieces take 0.4 MB
INSTALL = "pip install sentencepiece; ModelScope's tokens.json, put beside it, does without"


def pieces_in(folder: Path) -> list[str]:
    """Read those of FunASR's folder, as upstream does or, without the library, out of ModelScope's list."""
    stated = funasr.stated_file(folder, "tokenizer_conf", "bpemodel")
    models = [stated] if stated else sorted(path.name for path in folder.glob("*bpe.model"))
    has_list = os.path.lexists(folder / TOKENS_FILE)
    if models and (importlib.util.find_spec("sentencepiece") or not has_list):
        return read_sentencepiece(file_in(folder, models[0], f"copy it, or ModelScope's {TOKENS_FILE}"))
    return read_tokens(file_in(folder, TOKENS_FILE, "copy it, or the SentencePiece model"))


def read_sentencepiece(path: Path) -> list[str]:
    """Read a SentencePiece model; a `SetupError` where the library is missing."""
    try:
        import sentencepiece
    except ImportError as error:
        raise SetupError(f"{path}: reading it needs sentencepiece", INSTALL, code="package-missing") from error
    content = read_limited(path, LIMIT_BYTES)
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        return [model.IdToPiece(index) for index in range(model.GetPieceSize())]
    except (RuntimeError, ValueError) as error:  # UnicodeDecodeError is one
        raise unreadable(path, error, DAMAGED_HINT) from error


def read_tokens(path: Path) -> list[str]:
    """Read ModelScope's list."""
    content = read_limited(path, LIMIT_BYTES)
    try:
        return _checked(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error


def to_text(pieces: list[str]) -> str:
    """Write them as they stand in `PIECES_FILE`."""
    return json.dumps({"pieces": pieces}, ensure_ascii=False, indent=0)


def converted_vocabulary(files: Mapping[str, Path], texts: Mapping[str, str], size: int) -> PieceVocabulary:
    """Read `PIECES_FILE`, in a folder or still to be written into one, for a model with as many outputs."""
    content = read_small_json(files, texts, PIECES_FILE, LIMIT_BYTES)
    try:
        pieces = _checked(content.get("pieces"))
    except ValueError as error:
        raise unreadable(files[PIECES_FILE], error, DAMAGED_HINT) from error
    if len(pieces) != size:
        message = f"{PIECES_FILE}: has {len(pieces)} pieces, the model {size}"
        raise ModelError(message, "it is another model's", code="tokenizer-mismatch")
    return PieceVocabulary(pieces)


def _checked(pieces: Any) -> list[str]:
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError("not a list of texts")
    "".join(pieces).encode()  # refuses half of a character
    return pieces
