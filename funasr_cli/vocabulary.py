"""Marks in prompts, and CTC vocabularies of bytes and of SentencePiece pieces.

Source: FunASR ``funasr/models/sense_voice/whisper_lib/tokenizer.py``.
"""

import base64
import codecs
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from funasr_cli.errors import UsageError

if TYPE_CHECKING:
    from tiktoken import Encoding
    from tokenizers import Tokenizer

EMPTY_THINK = "<think>\n\n</think>\n\n"  # at the end of a prompt, keeps Qwen3 from thinking
MARKS = ("<|im_start|>", "<|im_end|>")  # in the prompt: a single token each, with any tokenizer
# Pattern that splits text before its bytes are merged: upstream's ``get_encoding``, which is GPT-2's.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # represents a space in SentencePiece's pieces
TAG = re.compile(r"<\|(.*)\|>", re.DOTALL)  # a piece that is not text, such as <|zh|>
BYTE = re.compile("<0x([0-9A-F]{2})>")  # a piece that is one byte of a character
NO_TEXT = ("<unk>", "<s>", "</s>")
# GPT-2's alphabet: a character for each byte, its own if it is printable.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
BYTES = {character: byte for byte, character in CHARACTERS.items()}


def refuse_control_tokens(what: str, text: str, tokenizer: "Tokenizer", others: Iterable[str] = ()) -> None:
    """Raise a `UsageError` if a text for the prompt contains a control token, or one of the others."""
    for token in (*(added.content for added in tokenizer.get_added_tokens_decoder().values()), *others):
        if token in text:
            message = f"{what} contains the control token {token}"
            raise UsageError(message, "remove it", code="prompt-text")


class CTCVocabulary:
    """Vocabulary of the CTC branch, to decode token ids and encode text.

    It is read from ``multilingual.tiktoken``, which has a base64 token and its id on each line. What differs from
    upstream: higher ids (languages, events, emotions) are omitted from the text, not spelled ``<|zh|>``, and
    encoding a text never produces them.
    """

    def __init__(self, ranks: str):
        pairs = (line.split() for line in ranks.splitlines() if line.strip())
        self._bytes = {int(rank): base64.b64decode(token) for token, rank in pairs}

    def decode(self, token_ids: list[int]) -> str:
        """Decode token ids to text. Bytes that are not UTF-8 become replacement characters."""
        return b"".join(self._bytes.get(token_id, b"") for token_id in token_ids).decode(errors="replace")

    def spell(self, token_ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
        """Decode token ids; also return, for each character, the indices of the first and last id that form it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, sources, begun = "", list[tuple[int, int]](), 0
        for index, token_id in enumerate(token_ids):
            begun = begun if decoder.getstate()[0] else index
            spelled = decoder.decode(self._bytes.get(token_id, b""))
            if spelled:
                sources += [(begun, index)] + [(index, index)] * (len(spelled) - 1)
                text, begun = text + spelled, index
        rest = decoder.decode(b"", final=True)
        return text + rest, sources + [(begun, len(token_ids) - 1)] * len(rest)

    def can_spell(self, text: str) -> bool:
        """Return whether there is an id for every byte of the text. Otherwise, `encode` fails."""
        return all(bytes([byte]) in self._tokens for byte in text.encode(errors="replace"))

    def encode(self, text: str) -> list[int]:
        """Encode a text as token ids."""
        return self._encoding.encode_ordinary(text)

    @cached_property
    def _encoding(self) -> "Encoding":
        from tiktoken import Encoding

        return Encoding("ctc", pat_str=PATTERN, mergeable_ranks=self._tokens, special_tokens={})

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        return {token: rank for rank, token in self._bytes.items()}


class ByteVocabulary(CTCVocabulary):
    """Vocabulary of byte tokens and of special tokens, which are not part of a text.

    It is made from two tables of ids: by token in GPT-2's alphabet, and by name without marks, such as "en".
    """

    def __init__(self, tokens: Mapping[str, int], special: Mapping[str, int]):
        self._bytes = {token_id: bytes(map(BYTES.__getitem__, token)) for token, token_id in tokens.items()}
        self.special = special


class TimedVocabulary(ByteVocabulary):
    """Vocabulary with a token that ends a text, above all tokens of text, and with time tokens above all others.

    Attributes:
        end: id of the former.
        first_time: id of the token for the start of a segment; those of later times follow.
    """

    end: int
    first_time: int


class PieceVocabulary(CTCVocabulary):
    """Vocabulary of SentencePiece pieces.

    Tags among the pieces, such as ``<|zh|>``, are not part of a text.
    """

    def __init__(self, pieces: Sequence[str]):
        self._bytes, self._ids, self.tags = dict[int, bytes](), dict[str, int](), dict[str, int]()
        for token_id, piece in enumerate(pieces):
            if tag := TAG.fullmatch(piece):
                self.tags.setdefault(tag[1], token_id)
            elif byte := BYTE.fullmatch(piece):
                self._bytes[token_id] = bytes([int(byte[1], 16)])
            elif piece not in NO_TEXT:
                self._bytes[token_id] = piece.replace(SPACE, " ").encode()
                self._ids.setdefault(piece, token_id)

    def can_spell(self, text: str) -> bool:
        """Return whether each character of the text is a piece."""
        return all(char in self._ids for char in text.replace(" ", SPACE))

    def encode(self, text: str) -> list[int]:
        """Encode a text. Each of its characters must be a piece.

        Neighbours are merged as in SentencePiece's BPE: the pair whose piece was learned first, which has the
        lowest id, is merged first. What differs: the text is not normalised, no space is prepended, and nothing in
        it is treated as a tag.
        """
        parts, none = list(text.replace(" ", SPACE)), math.inf
        while True:
            merged = [self._ids.get(one + other, none) for one, other in pairwise(parts)]
            if min(merged, default=none) == none:
                return [self._ids[part] for part in parts]
            index = merged.index(min(merged))
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
