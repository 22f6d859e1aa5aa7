"""What a caller can choose: the one place where these defaults stand. Imports nothing heavy."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

from funasr_cli.errors import UsageError
from funasr_cli.languages import LANGUAGES, language_code

# Of a prompt's text: hotwords, earlier text and what stands around them (some 30). In the release each one takes
# 230 kB in every row (float32); it was taught with a few dozen hotwords.
MAX_PROMPT_TOKENS = 4096
LONG_PROMPT_TOKENS = 1024  # twice as many as 30 s of sound make: more of them is warned about
MAX_SEGMENT_S = 300  # ten times what upstream's models were trained on
AS_STORED = "stored"  # to compute in what a model is stored in
DTYPES = ("bfloat16", "float32")
MIXED = "mixed"  # 4 bits, and 8 where they matter most
RECIPES = ("4", "8", MIXED)
ENCODER_BITS = (8,)
OFF, CLIP, FULL = VERIFICATIONS = ("off", "clip", "full")
DRAFTS = AUTO_DRAFT, NO_DRAFT = ("auto", "off")
GROUP_SIZES = (32, 64, 128)  # those of `mx.quantize`
GROUP_SIZE = 64
AT_LEAST_1, SEGMENT_LIMITS = "it must be at least 1", f"it must be 2 to {MAX_SEGMENT_S} s"
FLOAT16 = "float16 cannot hold this model: its encoder reaches 10,000 and its adaptor peaks above 1,000"
BFLOAT16 = "use bfloat16, which takes the same space, or float32"
ENCODER_RECIPE = "cannot quantize the encoder to {} bits"


class Hub(StrEnum):
    """Where checkpoints are fetched from."""

    HF = "hf"
    MS = "ms"

    @property
    def label(self) -> str:
        """What it calls itself."""
        return {"hf": "Hugging Face", "ms": "ModelScope"}[self]


DEFAULT_HUB = Hub.HF


class Timestamps(StrEnum):
    """Whose times are shown beside a text."""

    WORD = "word"
    SEGMENT = "segment"
    NONE = "none"


class Tags(StrEnum):
    """How emotion and sounds are shown beside a text; JSON always has them in a field of their own."""

    NONE = "none"
    TEXT = "text"
    EMOJI = "emoji"


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe.

    Attributes:
        language: ISO code or name of the language to write; None lets the model decide.
        hotwords: words to expect.
        prev_text: what has been said already; the text of a recording's first segment goes on from it. With the
            hotwords it may take `MAX_PROMPT_TOKENS` of the decoder's tokens.
        itn: inverse text normalisation, numbers as digits.
        max_tokens: stop writing a segment after this many tokens, for good; None goes by the segment's length.
        exact_tokens: write exactly this number of tokens for each segment, whatever they are: for measuring.
        temperature: 0 always takes the likeliest token.
        top_p: sample from the likeliest tokens that together hold this share; None samples from all.
        top_k: sample from this many of the likeliest tokens; None samples from all.
        seed: start of the random numbers; None is 0. A clip's text depends on it, not on its neighbours.
        confidence: also keep how sure the decoder was of each piece of text.
        ctc: also spell out the best path of the CTC branch, where the checkpoint has one.
        draft: "auto" lets the decoder check the CTC branch's text, several tokens a step, instead of writing every
            token by itself, where the checkpoint has the branch; "off" does not. The text is the same.
        second_opinion: compare each text with what the CTC branch heard, where the checkpoint has one; where they
            differ too much, decode it again in parts, and warn if that does not help.
        word_times: also find out when each word was said, where the model or another one can tell.
        vad: leave out silence (voice activity detection) and end segments in pauses.
        vad_threshold: probability from which a frame counts as speech.
        min_pause_s: shortest pause that ends a segment.
        join_s: segments shorter than this go on over longer pauses, up to a second while they are very short.
        max_segment_s: no segment is longer; upstream's models were trained on up to 30 s.
        batch_size: segments decoded side by side; None goes by the memory at hand.
    """

    language: str | None = None
    hotwords: tuple[str, ...] = ()
    prev_text: str | None = None
    itn: bool = True
    max_tokens: int | None = None
    exact_tokens: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    confidence: bool = False
    ctc: bool = False
    draft: str = AUTO_DRAFT
    second_opinion: bool = True
    word_times: bool = False
    vad: bool = True
    vad_threshold: float = 0.5
    min_pause_s: float = 0.4
    join_s: float = 0.0
    max_segment_s: float = 30.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raise a UsageError, in the words of the command line, for values that are out of range or idle."""
        _refuse_first(
            ("--max-tokens is {}", self.max_tokens, lambda x: x >= 1, AT_LEAST_1),
            ("--exact-tokens is {}", self.exact_tokens, lambda x: x >= 1, AT_LEAST_1),
            ("hotwords is a text", self.hotwords, lambda x: not isinstance(x, str), "pass a tuple of words"),
            ("--temperature is {}", self.temperature, lambda x: 0 <= x < inf, "it must be 0 (greedy) or above"),
            ("--vad-threshold is {}", self.vad_threshold, lambda x: 0 < x < 1, "it must be between 0 and 1"),
            ("--min-pause is {} s", self.min_pause_s, lambda x: 0.1 <= x <= 10, "it must be 0.1 to 10 s"),
            ("--max-segment is {} s", self.max_segment_s, lambda x: 2 <= x <= MAX_SEGMENT_S, SEGMENT_LIMITS),
            ("--join is {} s", self.join_s, lambda x: 0 <= x <= self.max_segment_s, "from 0 to --max-segment"),
            ("cannot draft {!r}", self.draft, DRAFTS.__contains__, _choice(DRAFTS)),
            ("--batch-size is {}", self.batch_size, lambda x: x >= 1, AT_LEAST_1),
            ("--top-p is {}", self.top_p, lambda x: 0 < x <= 1, "it must be above 0 and at most 1"),
            ("--top-k is {}", self.top_k, lambda x: x >= 1, AT_LEAST_1),
            ("--seed is {}", self.seed, lambda x: 0 <= x < 2**63, "it must be at least 0 and below 2**63"),
        )
        sampling = {"--top-p": self.top_p, "--top-k": self.top_k, "--seed": self.seed}
        unused = ", ".join(name for name, value in sampling.items() if value is not None)
        if unused and self.temperature == 0:
            hint = "add --temperature, for example 0.6"
            raise UsageError(f"{unused} without a temperature", hint, code="options-conflict")


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        dtype: type of everything that is not quantized.
        quantize: recipe for the decoder's matrices, of `RECIPES`; None leaves them dense.
        quantize_encoder: bits for the encoder's matrices; None leaves them dense.
        group_size: values that share a scale; None takes `GROUP_SIZE`.
        languages: what the checkpoint can write, codes or names (kept as codes); None goes by the source.
        verify: how the result is proved before it takes its place: "off"; "clip", by decoding a bundled clip
            beside the source; "full", also by comparing each stage with PyTorch.
    """

    dtype: str = "bfloat16"
    quantize: str | None = None
    quantize_encoder: int | None = None
    group_size: int | None = None
    languages: tuple[str, ...] | None = None
    verify: str = CLIP

    def __post_init__(self) -> None:
        """Raise a UsageError for what cannot work."""
        if isinstance(self.quantize, int):  # as is natural in Python
            object.__setattr__(self, "quantize", str(self.quantize))
        _refuse_first(
            (FLOAT16, self.dtype, lambda x: x != "float16", BFLOAT16),
            ("unknown type {!r}", self.dtype, DTYPES.__contains__, _choice(DTYPES)),
            ("no recipe {!r} for quantization", self.quantize, RECIPES.__contains__, _choice(RECIPES)),
            (ENCODER_RECIPE, self.quantize_encoder, ENCODER_BITS.__contains__, _choice(ENCODER_BITS)),
            ("cannot verify {!r}", self.verify, VERIFICATIONS.__contains__, _choice(VERIFICATIONS)),
            ("group size {}", self.group_size, GROUP_SIZES.__contains__, _choice(GROUP_SIZES)),
        )
        if self.languages is not None:
            object.__setattr__(self, "languages", tuple(map(_known_language, self.languages)))
        if self.group_size is not None and self.quantize is None and self.quantize_encoder is None:
            raise UsageError("a group size without quantization", "add --quantize", code="options-conflict")

    @property
    def suffix(self) -> str:
        """What a conversion with this recipe is called behind the source's name."""
        decoder = {None: "", MIXED: "-mixed"}.get(self.quantize, f"-{self.quantize}bit")
        return decoder + (f"-encoder{self.quantize_encoder}bit" if self.quantize_encoder else "")


def known_hub(name: str) -> Hub:
    """The hub of a name; a `UsageError` where there is none."""
    _refuse_first(("unknown hub {!r}", name, tuple(Hub).__contains__, _choice(Hub)))
    return Hub(name)


def _known_language(name: str) -> str:
    code = language_code(name)
    if code is None:
        raise UsageError(f"unknown language {name!r}", f"known: {', '.join(LANGUAGES)}", code="language-unknown")
    return code


def _refuse_first(*checks: tuple[str, Any, Callable[[Any], bool], str]) -> None:
    """Refuse the first value that fails its check: the problem with it, the value, what must hold, and a hint."""
    for problem, value, holds, hint in checks:
        if value is not None and not holds(value):
            raise UsageError(problem.format(value), hint, code="option-value")


def _choice(values: Iterable[object]) -> str:
    return f"choose from {', '.join(map(str, values))}"


DEFAULTS = TranscribeOptions()
CONVERT_DEFAULTS = ConvertOptions()
BENCH_TRIALS = 3
