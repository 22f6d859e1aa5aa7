"""The pieces of a SentencePiece vocabulary by id, out of plain JSON or out of its own model.

A converted model has them in JSON: the SentencePiece library is needed only for converting.
"""

import json
from pathlib import Path

from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, read_limited, unreadable
from funasr_cli.errors import SetupError

LIMIT_BYTES = 1 << 23  # SenseVoice's 25,055 pieces take 0.4 MB
INSTALL = "pip install sentencepiece; ModelScope's tokens.json, put beside it, does without"


def read_pieces(path: Path) -> list[str]:
    """Read a JSON list of texts: our own, or ModelScope's ``tokens.json``."""
    content = read_limited(path, LIMIT_BYTES)
    try:
        pieces = json.loads(content)
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise ValueError("not a list of texts")
        "".join(pieces).encode()  # refuses half of a character
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
    return pieces


def read_sentencepiece(path: Path) -> list[str]:
    """Read a SentencePiece model, or raise a `SetupError` where the library is missing."""
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
