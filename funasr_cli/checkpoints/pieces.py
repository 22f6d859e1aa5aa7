"""The pieces of a SentencePiece vocabulary, in id order: read from its own model or from JSON.

A converted model stores them as JSON, so the SentencePiece library is needed only for converting.
"""

import importlib.util
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import read_small_json
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, optional_file_in, read_limited, unreadable
from funasr_cli.checkpoints.vocabularies import VOCABULARY_HINT
from funasr_cli.errors import ModelError, SetupError
from funasr_cli.extras import to_add
from funasr_cli.vocabulary import PieceVocabulary

PIECES_FILE = "pieces.json"  # in a converted model
SENTENCEPIECE = "bpe.model"  # suffix of SentencePiece model files
TOKENS_FILE = "tokens.json"  # on ModelScope
SPELLING_LIMIT_BYTES = 1 << 25  # in Paraformer's release, seg_dict has 8.3 MB
LIMIT_BYTES = 1 << 23  # SenseVoice's 25,055 pieces take 0.4 MB
INSTEAD = "use ModelScope's tokens.json, which does not need it: --hub ms, or copy it into the same folder"


def vocabulary_file(folder: Path) -> Path:
    """Return the vocabulary file in a FunASR folder: the SentencePiece model, or ModelScope's ``tokens.json``.

    Upstream uses the SentencePiece model. ``tokens.json`` is used if the model or the library is missing.
    """
    found = sorted(path.name for path in folder.glob(f"*{SENTENCEPIECE}"))
    model = funasr.stated_file(folder, "tokenizer_conf", "bpemodel") or next(iter(found), None)
    has_list = os.path.lexists(folder / TOKENS_FILE)
    has_library = importlib.util.find_spec("sentencepiece") is not None
    if model is None or (has_list and not (optional_file_in(folder, model) and has_library)):
        return file_in(folder, TOKENS_FILE, "copy it, or the SentencePiece model")
    return file_in(folder, model, f"copy it, or ModelScope's {TOKENS_FILE}")


def read_pieces(path: Path) -> list[str]:
    """Read the pieces from either file; raise a `SetupError` if the library is needed but missing."""
    return read_tokens(path) if path.name == TOKENS_FILE else read_sentencepiece(path)


def require_sentencepiece(path: object) -> None:
    """Raise a `SetupError`, naming the file, if the SentencePiece library is missing."""
    try:
        import sentencepiece  # noqa: F401
    except ImportError as error:
        hint = f"{to_add('convert')}; or {INSTEAD}"
        raise SetupError(f"{path}: reading it needs sentencepiece", hint, code="package-missing") from error


def read_sentencepiece(path: Path) -> list[str]:
    """Read a SentencePiece model; raise a `SetupError` if the library is missing."""
    require_sentencepiece(path)
    import sentencepiece

    content = read_limited(path, LIMIT_BYTES)
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        return [model.IdToPiece(index) for index in range(model.GetPieceSize())]
    except (RuntimeError, ValueError) as error:  # UnicodeDecodeError is one
        raise unreadable(path, error, DAMAGED_HINT) from error


def read_tokens(path: Path) -> list[str]:
    """Read ModelScope's ``tokens.json``."""
    content = read_limited(path, LIMIT_BYTES)
    try:
        return _checked(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error


def to_text(pieces: list[str]) -> str:
    """Return the content of `PIECES_FILE`."""
    return json.dumps({"pieces": pieces}, ensure_ascii=False, indent=0)


def refuse_other_vocabulary(path: object, pieces: Sequence[str], outputs: int, tags: Collection[str]) -> None:
    """Raise a `ModelError` if the vocabulary's size is not ``outputs``, or a tag such as zh is missing."""
    problem = f"has {len(pieces)} pieces, but the model has {outputs} outputs" if len(pieces) != outputs else None
    if missing := sorted({f"<|{tag}|>" for tag in tags} - {*pieces}):
        problem = problem or f"lacks {', '.join(missing)}"
    if problem:
        raise ModelError(f"{path}: {problem}", VOCABULARY_HINT, code="tokenizer-mismatch")


def converted_vocabulary(
    files: Mapping[str, Path], texts: Mapping[str, str], outputs: int, tags: Collection[str]
) -> PieceVocabulary:
    """Read the vocabulary of a converted model; see `converted_pieces` and `refuse_other_vocabulary`."""
    pieces = converted_pieces(files, texts)
    refuse_other_vocabulary(files.get(PIECES_FILE, PIECES_FILE), pieces, outputs, tags)
    return PieceVocabulary(pieces)


def converted_pieces(files: Mapping[str, Path], texts: Mapping[str, str]) -> list[str]:
    """Read `PIECES_FILE` from a file, or from text not written yet; raise a `ModelError` if it is damaged."""
    content = read_small_json(files, texts, PIECES_FILE, LIMIT_BYTES)
    try:
        return _checked(content.get("pieces"))
    except ValueError as error:
        raise unreadable(files.get(PIECES_FILE, Path(PIECES_FILE)), error, DAMAGED_HINT) from error


def read_spelling(path: Path, tokens: Collection[str]) -> dict[str, list[str]]:
    """Read a ``seg_dict``, which has the tokens of each word on a line: ``word token token``.

    Raises:
        ModelError: it is not text, or spells no word with these tokens.
    """
    try:
        lines = read_limited(path, SPELLING_LIMIT_BYTES).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    spelling = {word: parts for word, *parts in map(str.split, filter(str.strip, lines))}
    known = frozenset(tokens)
    if not any(parts and known.issuperset(parts) for parts in spelling.values()):
        message = f"{path}: spells no word with the model's tokens"
        raise ModelError(message, VOCABULARY_HINT, code="tokenizer-mismatch")
    return spelling


def _checked(pieces: Any) -> list[str]:
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError("not a list of strings")
    "".join(pieces).encode()  # raises on a lone surrogate
    return pieces
