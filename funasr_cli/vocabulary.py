"""The marks that every tokenizer has to know, and the vocabularies of CTC outputs: of bytes, and of pieces.

Source: FunASR ``funasr/models/sense_voice/whisper_lib/tokenizer.py``.
"""

import base64
import codecs
import math
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

MARKS = ("<|im_start|>", "<|im_end|>")  # of the prompt: single tokens, whatever the tokenizer
# How text is cut before its bytes are merged: upstream's ``get_encoding``, GPT-2's pattern.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in a piece of SentencePiece's
TAG = re.compile(r"<\|(.*)\|>", re.DOTALL)  # a piece that is no text, such as <|zh|>
BYTE = re.compile("<0x([0-9A-F]{2})>")  # a piece that is one byte of a character
NO_TEXT = ("<unk>", "<s>", "</s>")


class CTCVocabulary:
    """Token ids of the CTC branch to text and back.

    Made of what stands in ``multilingual.tiktoken``: a base64 token and its id on each line. What differs from
    upstream: ids behind those (languages, events, emotions) are left out of the text instead of being spelled
    ``<|zh|>``, and no text makes them.
    """

    def __init__(self, ranks: str):
        pairs = (line.split() for line in ranks.splitlines() if line.strip())
        self._bytes = {int(rank): base64.b64decode(token) for token, rank in pairs}

    def decode(self, token_ids: list[int]) -> str:
        """Text of the ids; bytes that are no UTF-8 become replacement characters."""
        return b"".join(self._bytes.get(token_id, b"") for token_id in token_ids).decode(errors="replace")

    def spell(self, token_ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
        """`decode`, and for each character from which of the ids to which it comes, both counted from 0."""
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
        """Whether there is an id for every byte, without which `encode` fails."""
        return all(bytes([byte]) in self._tokens for byte in text.encode(errors="replace"))

    def encode(self, text: str) -> list[int]:
        """Ids that spell a text."""
        return self._encoding.encode_ordinary(text)

    @cached_property
    def _encoding(self) -> "Encoding":
        from tiktoken import Encoding

        return Encoding("ctc", pat_str=PATTERN, mergeable_ranks=self._tokens, special_tokens={})

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        return {token: rank for rank, token in self._bytes.items()}


class PieceVocabulary(CTCVocabulary):
    """Token ids to text and back, where each token is a piece of text as SentencePiece learns them.

    Tags among the pieces, such as ``<|zh|>``, are no part of a text.
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
        """Whether each character is a piece."""
        return all(char in self._ids for char in text.replace(" ", SPACE))

    def encode(self, text: str) -> list[int]:
        """Ids that spell a text, of which each character is a piece.

        Neighbours are merged as in SentencePiece's BPE: first the pair whose piece was learned first, which is the
        one with the lowest id. What differs: the text is taken as it is, without normalisation or a space put in
        front, and nothing in it is a tag.
        """
        parts, none = list(text.replace(" ", SPACE)), math.inf
        while True:
            merged = [self._ids.get(one + other, none) for one, other in pairwise(parts)]
            if min(merged, default=none) == none:
                return [self._ids[part] for part in parts]
            index = merged.index(min(merged))
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
