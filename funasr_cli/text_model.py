"""The interface of language models that write text: chat models, and the decoders of some speech models.

A prompt is a string in the model's own markup. `TextModel.chat` makes one from a message; anything else is
continued as it stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from funasr_cli.errors import UsageError
from funasr_cli.options import MOST_TEMPERATURE, TEMPERATURE_LIMITS
from funasr_cli.speech_model import Trace


@dataclass(frozen=True)
class TextOptions:
    """Options for writing text.

    Attributes:
        max_tokens: limit on the tokens that are written, the stop token included.
        temperature: sampling temperature, at most 2. 0 is greedy: it always takes the most likely token.
        top_p: sample from the most likely tokens with this cumulative probability. None samples from all.
        top_k: sample from this number of most likely tokens. None samples from all.
        presence_penalty: subtracted once from the logit of each token that has been written; -2 to 2.
        seed: seed of the random numbers; None is 0. A text does not depend on the other texts of its batch.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise a `UsageError` for values out of range or without effect."""
        for name, holds, limits in (
            ("max_tokens", self.max_tokens >= 1, "it must be at least 1"),
            ("temperature", 0 <= self.temperature <= MOST_TEMPERATURE, TEMPERATURE_LIMITS),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "it must be above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "it must be at least 1"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "it must be -2 to 2"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "it must be at least 0 and below 2**63"),
        ):
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}", limits, code="option-value")
        unused = [name for name in ("top_p", "top_k", "seed") if getattr(self, name) is not None]
        if unused and self.temperature == 0:
            message = f"no effect without a temperature: {', '.join(unused)}"
            raise UsageError(message, "set a temperature, for example 0.6", code="options-conflict")


@dataclass(frozen=True)
class TextResult:
    """A text that a model has written.

    Attributes:
        text: without ``<think>`` blocks, and without the rounds of a loop after the first.
        tokens: number of tokens written, the stop token included.
        stop_reason: as in `Segment`: "eos" (complete), "budget" (`max_tokens` reached), "loop" (the text repeated
            itself) or "nonfinite" (a value was not a number).
        mean_logprob: mean log-probability of the tokens; None if there are none.
    """

    text: str
    tokens: int
    stop_reason: str
    mean_logprob: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the model ended the text itself."""
        return self.stop_reason == "eos"


GREEDY = TextOptions()


@runtime_checkable
class TextModel(Protocol):
    """A loaded model, ready to write."""

    name: str  # name of the checkpoint that it was converted from
    engine: str  # what computes it, as in `SpeechModel`
    weights_type: str
    parameters: int
    native_bytes: int

    def chat(self, message: str, system: str | None = None) -> str:
        """Return the prompt that asks for an answer to a message, with thinking switched off.

        Raises:
            UsageError: a text contains one of the model's control tokens, such as ``<|im_end|>``.
        """

    def write(
        self, prompts: Sequence[str], options: TextOptions = GREEDY, max_tokens: Sequence[int] = ()
    ) -> list[TextResult]:
        """Continue prompts in shared batches, in bounded memory; return the texts in the order of the prompts.

        A text does not depend on the other prompts.

        Args:
            prompts: any number of them.
            options: of all prompts.
            max_tokens: a limit for each prompt, instead of that of the options.

        Raises:
            UsageError: a prompt is empty, or leaves no room for `max_tokens` tokens.
        """

    def stream(self, prompt: str, options: TextOptions = GREEDY) -> Iterator[str]:
        """Yield the text of one prompt in pieces that never change, as they are written.

        Joined, they are the text that `write` returns, except that the rounds of a loop after the first have been
        yielded already.
        """

    def trace(self, prompt: str, tokens: int, forced_ids: Sequence[int] | None = None) -> Trace:
        """Continue a prompt by at most this number of tokens, for comparing two conversions of a model.

        With `forced_ids`, return the logits for these tokens instead of those that the model writes.
        """


@runtime_checkable
class HasTextModel(Protocol):
    """A speech model whose decoder is a language model that can also write text from text."""

    @property
    def text_model(self) -> TextModel:
        """Its decoder as a model of texts, which shares the weights."""
