"""The marks that every tokenizer has to know, and the vocabulary of the CTC branch.

Source: FunASR ``funasr/models/sense_voice/whisper_lib/tokenizer.py``.
"""

import base64
import codecs
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

MARKS = ("<|im_start|>", "<|im_end|>")  # of the prompt: single tokens, whatever the tokenizer
# How text is cut before its bytes are merged: upstream's ``get_encoding``, GPT-2's pattern.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


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
