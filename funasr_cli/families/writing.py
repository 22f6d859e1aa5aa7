"""Writing text with a Qwen3 decoder: a chat model's, or that of a speech model."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from funasr_cli.compute.backend import mx
from funasr_cli.compute.memory import available_bytes
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.rules import PresencePenalty
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import StoppingCriteria
from funasr_cli.decoding.text import TextStream, settled_written_text, written_text
from funasr_cli.errors import UsageError
from funasr_cli.families.family import LoadedModel
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.speech_model import Trace
from funasr_cli.text_model import GREEDY, TextOptions, TextResult
from funasr_cli.vocabulary import EMPTY_THINK, refuse_control_tokens

TURN = "<|im_start|>{role}\n{text}<|im_end|>\n"  # ChatML
ANSWER = "<|im_start|>assistant\n"
ROWS_AT_ONCE, MOST_ROWS = 4, 16  # as of segments, see `families.rows`


@dataclass(frozen=True)
class Prompted:
    """A prompt whose text is to be written."""

    ids: list[int]
    max_tokens: int


class QwenWriter:
    """A Qwen3 decoder that continues prompts; see `TextModel`."""

    def __init__(
        self,
        loaded: LoadedModel,
        llm: Qwen3 | NativeQwen3,
        tokenizer: Tokenizer,
        *,
        stop_token_ids: tuple[int, ...],
        positions: int,
        empty_think: bool,
    ):
        """Make a writer of a loaded model.

        Args:
            loaded: the model.
            llm: its decoder.
            tokenizer: that of the decoder.
            stop_token_ids: tokens that end a text.
            positions: the most tokens of a prompt and its text.
            empty_think: whether an empty ``<think>`` block keeps the model from thinking.
        """
        self.name, self.engine, self.weights_type = loaded.name, loaded.engine, loaded.weights_type
        self.parameters, self.native_bytes = loaded.parameters, loaded.native_bytes
        self.llm, self.tokenizer = llm, tokenizer
        self._stop_token_ids, self._positions, self._empty_think = stop_token_ids, positions, empty_think

    def chat(self, message: str, system: str | None = None) -> str:
        """Return the prompt that asks for an answer to a message, with thinking switched off."""
        for text in (message, system or ""):
            refuse_control_tokens("the message", text, self.tokenizer)
        turns = TURN.format(role="system", text=system) if system is not None else ""
        turns += TURN.format(role="user", text=message) + ANSWER
        return turns + (EMPTY_THINK if self._empty_think else "")

    def write(
        self, prompts: Sequence[str], options: TextOptions = GREEDY, max_tokens: Sequence[int] = ()
    ) -> list[TextResult]:
        """Continue prompts in shared batches; see `TextModel`."""
        limits = max_tokens or [options.max_tokens] * len(prompts)
        waiting = [self._prompted(*pair) for pair in zip(prompts, limits, strict=True)]
        if not waiting:
            return []
        most_rows, begun = self._most_rows(waiting), 0
        rows, results = dict[int, RowText](), dict[int, TextResult]()  # by number, from 0 in the prompts' order
        with closing(self._decoder(options)) as decoder:
            while len(results) < len(waiting):
                joining = waiting[begun : begun + min(ROWS_AT_ONCE, most_rows - len(rows))]
                if joining:
                    numbers = self._add(decoder, joining, options)
                    rows |= zip(numbers, map(self._row, joining), strict=True)
                    begun += len(joining)
                for token in decoder.step():
                    if token.row in rows and rows[token.row].push(token):
                        decoder.end(token.row)
                        results[token.row] = _result(rows.pop(token.row))
        return [results[index] for index in range(len(waiting))]

    def stream(self, prompt: str, options: TextOptions = GREEDY) -> Iterator[str]:
        """Yield the text of one prompt in pieces; see `TextModel`. A prompt that cannot be read raises at once."""
        return self._stream(self._prompted(prompt, options.max_tokens), options)

    def _stream(self, prompted: Prompted, options: TextOptions) -> Iterator[str]:
        row, shown = self._row(prompted), 0
        with closing(self._decoder(options)) as decoder:
            self._add(decoder, [prompted], options)
            while row.reason is None:
                for token in decoder.step():
                    row.push(token)
                text = row.stream.settled if row.reason is None else written_text(row.stream.raw)
                if len(text) > shown:
                    yield text[shown:]
                    shown = len(text)

    def trace(self, prompt: str, tokens: int, forced_ids: Sequence[int] | None = None) -> Trace:
        """Continue a prompt, and keep the logits; see `TextModel`."""
        prompted, written = self._prompted(prompt, tokens), list[int]()
        with closing(self._decoder(GREEDY)) as decoder:
            self._add(decoder, [prompted], GREEDY)
            while len(written) < tokens and not (written and written[-1] in self._stop_token_ids):
                written += [token.token_id for token in decoder.step()]
        forced = list(forced_ids or written)
        columns = self._embedded(prompted.ids + forced[:-1])  # (columns, hidden)
        logits = np.array(self.llm.logits_after(columns, len(forced)))  # (steps, vocab)
        text = self._spell([token_id for token_id in written if token_id not in self._stop_token_ids])
        return Trace({}, logits, tuple(written), text)

    def _prompted(self, prompt: str, max_tokens: int) -> Prompted:
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        if not ids:
            raise UsageError("the prompt is empty", "name what to continue", code="prompt-text")
        if len(ids) + max_tokens > self._positions:
            message = (
                f"the prompt has {len(ids)} tokens; with {max_tokens} more, {self.name} takes {self._positions}"
            )
            raise UsageError(message, "shorten it, or lower max_tokens", code="prompt-too-long")
        return Prompted(ids, max_tokens)

    def _most_rows(self, prompts: Sequence[Prompted]) -> int:
        """Return the number of rows whose keys and values fit into half the free memory, at most `MOST_ROWS`."""
        longest = max(len(prompted.ids) + prompted.max_tokens for prompted in prompts)
        return max(1, min(MOST_ROWS, available_bytes() // 2 // self.llm.row_bytes(longest)))

    def _decoder(self, options: TextOptions) -> BatchDecoder:
        return BatchDecoder(self.llm, make_sampler(options))

    def _add(self, decoder: BatchDecoder, prompts: Sequence[Prompted], options: TextOptions) -> list[int]:
        rules = [PresencePenalty(options.presence_penalty)] if options.presence_penalty else []
        return decoder.add([self._embedded(each.ids) for each in prompts], rules=rules * len(prompts))

    def _embedded(self, ids: Sequence[int]) -> Any:
        """Look up (tokens, hidden) embeddings."""
        return mx.array(self.llm.embed(mx.array(ids, mx.int32)))

    def _row(self, prompted: Prompted) -> RowText:
        stopping = StoppingCriteria(self._stop_token_ids, prompted.max_tokens, prompted.max_tokens)
        return RowText(TextStream(self._spell, settle=settled_written_text), stopping)

    def _spell(self, token_ids: list[int]) -> str:
        """Decode tokens to text, without special tokens."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))


def _result(row: RowText) -> TextResult:
    return TextResult(written_text(row.raw), len(row.logprobs), str(row.reason), row.mean_logprob)
