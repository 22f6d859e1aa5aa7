"""The interface for Python callers who want text from text: `TextGenerator`."""

from collections.abc import Iterator, Sequence
from typing import Any

from funasr_cli.compute.memory import FREED_BUFFERS, clear_streams_with_thread
from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES, language_code, listed
from funasr_cli.text_model import GREEDY, TextModel, TextOptions, TextResult

TRANSLATE = "Translate to {language}: {text}"  # as the second step of OminiX's funasr-qwen4b-mlx
LEAST_TOKENS = 200  # limit of a short translation, also OminiX's; a longer text gets as many as it has bytes


class TextGenerator:
    """A loaded language model that continues, answers and translates texts.

    Every method takes the fields of `TextOptions` as keyword arguments. Greedy decoding is the default.
    """

    def __init__(self, model: TextModel):
        self.model = model
        clear_streams_with_thread()  # frees the streams that loading used

    def chat(self, message: str, system: str | None = None) -> str:
        """Return the prompt that asks for an answer to a message, with thinking switched off.

        Raises:
            UsageError: a text contains one of the model's control tokens, such as ``<|im_end|>``.
        """
        return self.model.chat(message, system)

    def complete(
        self, prompt: str, max_tokens: int = GREEDY.max_tokens, temperature: float = 0.0, **changes: Any
    ) -> TextResult:
        """Continue a prompt as it stands; `chat` makes one from a message.

        Args:
            prompt: in the model's own markup, if it has any.
            max_tokens: limit on the tokens that are written.
            temperature: sampling temperature; 0 is greedy.
            changes: further fields of `TextOptions`.

        Raises:
            UsageError: an option is out of range, or the prompt is empty or too long.
        """
        return self.complete_batch([prompt], max_tokens, temperature, **changes)[0]

    def complete_batch(
        self,
        prompts: Sequence[str],
        max_tokens: int = GREEDY.max_tokens,
        temperature: float = 0.0,
        **changes: Any,
    ) -> list[TextResult]:
        """Continue several prompts in shared batches, as `complete` does."""
        _refuse_string(prompts)
        options = TextOptions(max_tokens, temperature, **changes)
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            return self.model.write(prompts, options)

    def generate_text(
        self, prompt: str, max_tokens: int = GREEDY.max_tokens, temperature: float = 0.0, **changes: Any
    ) -> Iterator[str]:
        """Continue a prompt, as `complete` does, and yield the text in pieces while it is being written.

        Close or drop the iterator to stop.
        """
        return self._pieces(prompt, TextOptions(max_tokens, temperature, **changes))

    def _pieces(self, prompt: str, options: TextOptions) -> Iterator[str]:
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            yield from self.model.stream(prompt, options)

    def translate(self, text: str, to: str = "en") -> TextResult:
        """Translate a text, greedily.

        Args:
            text: in any language that the model reads.
            to: ISO code or name of the language to translate into.

        Raises:
            UsageError: the language is unknown, or the text contains a control token or is too long.
        """
        return self.translate_batch([text], to)[0]

    def translate_batch(self, texts: Sequence[str], to: str = "en") -> list[TextResult]:
        """Translate several texts in shared batches, as `translate` does. Of nothing, there is no translation."""
        _refuse_string(texts)
        if (code := language_code(to)) is None:
            known = listed([f"{code} ({language.english_name})" for code, language in LANGUAGES.items()])
            raise UsageError(f"unknown language {to!r}", f"choose from {known}", code="language-unknown")
        language = LANGUAGES[code].english_name
        asked = [text for text in texts if text.strip()]
        prompts = [self.chat(TRANSLATE.format(language=language, text=text)) for text in asked]
        limits = [max(LEAST_TOKENS, len(text.encode(errors="replace"))) for text in asked]
        clear_streams_with_thread()
        with FREED_BUFFERS.limited():
            written = iter(self.model.write(prompts, GREEDY, limits))
        return [next(written) if text.strip() else TextResult("", 0, "eos") for text in texts]


def _refuse_string(texts: object) -> None:
    if isinstance(texts, str):
        raise UsageError("a single text is not a list of texts", "pass a list", code="argument-type")
