"""The CTC branch's own reading of a segment: its vocabulary, the text of its best path, its posteriors.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``inference_llm``) and
``funasr/models/sense_voice/whisper_lib/tokenizer.py``.
"""

import base64
import codecs
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from funasr_cli.backend import mx
from funasr_cli.decoding.text import clean_text
from funasr_cli.models.ctc import CTCHead, best_path

if TYPE_CHECKING:
    from tiktoken import Encoding

# How text is cut before its bytes are merged: upstream's ``get_encoding``, GPT-2's pattern.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class CTCVocabulary:
    """Token ids of the CTC branch to text and back.

    What differs from upstream: ids behind the ranks (languages, events, emotions) are left out of the text instead
    of being spelled ``<|zh|>``, and no text makes them.

    Args:
        ranks: contents of ``multilingual.tiktoken``, a base64 token and its id on each line.
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


@dataclass(frozen=True, eq=False)
class CTCReading:
    """What the CTC branch makes of one segment.

    Attributes:
        text: what its best path spells, cleaned as the decoder's text is.
        frame_ids: the likeliest label of each frame.
        blank_id: the label that says nothing.
        frame_duration_s: seconds from one frame to the next.
    """

    text: str
    frame_ids: list[int]
    blank_id: int
    frame_duration_s: float
    _hidden: mx.array  # (frames, width) behind the CTC decoder
    _head: CTCHead

    @property
    def token_ids(self) -> list[int]:
        """Labels of the best path, repeats merged and blanks removed."""
        return best_path(self.frame_ids, self.blank_id)

    def log_probs(self, labels: list[int]) -> np.ndarray:
        """(frames, labels) log-probabilities of these labels alone: all of them would be 240 kB a frame."""
        return self._head.logits_of(self._hidden, labels) - self._log_totals[:, None]

    @cached_property
    def _log_totals(self) -> np.ndarray:
        return self._head.log_totals(self._hidden)  # (frames,)


def read_ctc(
    head: CTCHead, hidden: mx.array, vocabulary: CTCVocabulary, blank_id: int, frame_duration_s: float
) -> CTCReading:
    """The reading of one segment.

    Args:
        head: of the CTC branch.
        hidden: (frames, width), the CTC decoder's output, without padding.
        vocabulary: of its labels.
        blank_id: the label that says nothing.
        frame_duration_s: seconds from one frame to the next.
    """
    frame_ids = head.best(hidden).tolist()
    text = clean_text(vocabulary.decode(best_path(frame_ids, blank_id)))
    return CTCReading(text, frame_ids, blank_id, frame_duration_s, hidden, head)
