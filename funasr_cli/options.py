"""Options for transcribing and converting, with their defaults. Imports nothing heavy."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from funasr_cli.errors import UsageError
from funasr_cli.languages import AUTO, LANGUAGES, language_code

# Limit for the text of a prompt: hotwords, previous text and the fixed text around them (about 30 tokens). In the
# released model a token takes 230 kB in every batch row (float32). It was trained with a few dozen hotwords.
MAX_PROMPT_TOKENS = 4096
MOST_EARLIER_TURNS = 4  # FunASR takes 5 turns with the recording's (multiturn_num_max), and drops the rest
LONG_PROMPT_TOKENS = 1024  # a longer prompt gives a warning; 30 s of audio take half as many tokens
SEGMENT_S = 30.0  # length of the longest segments that most models were trained on
MAX_SEGMENT_S = 300
AUTO_DTYPE = "auto"
AS_STORED = "stored"  # compute in the type that the model is stored in
DTYPES = ("bfloat16", "float32")
INT8 = "int8"
# What computes a model's decoder: MLX, or this package's C library on a CPU.
ENGINES = AUTO_ENGINE, MLX, NATIVE = ("auto", "mlx", "native")
NATIVE_DTYPES = (INT8, "float32")  # of the C library, the default first
MIXED = "mixed"  # 4 bits, with 8 bits for the most sensitive matrices
RECIPES = ("4", "8", MIXED)
ENCODER_BITS = (8,)
AUTO_PUNCTUATION, NO_PUNCTUATION = "auto", "none"  # other values name a punctuation model
AUTO_SPEAKERS, NO_SPEAKERS = "auto", "none"  # other values are a number, or a range
AUTO_SPEAKER_MODEL, NO_SPEAKER_MODEL = "auto", "none"
SPEAKER_METHODS = AVERAGE, FUNASR = ("average", "funasr")  # average linkage, and FunASR's clusters
SPEAKER_THRESHOLD, TELEPHONE_MARGIN = 0.74, 0.1  # the margin: by which voices are more alike on the telephone
ENGLISH = "en"  # the language to translate into, if none is named
OFF, CLIP, FULL = VERIFICATIONS = ("off", "clip", "full")
DRAFTS = AUTO_DRAFT, NO_DRAFT = ("auto", "off")
# What goes into the encoder of FunASR-Qwen4B: docs/qwen4b.md.
ENCODER_INPUTS = UNSCALED_INPUT, SCALED_INPUT, SENSE_VOICE_INPUT = ("unscaled", "scaled", "sensevoice")
GROUP_SIZES = (32, 64, 128)  # supported by `mx.quantize`
GROUP_SIZE = 64
# Voice activity detectors, and FSMN-VAD with FunASR's dynamic schedule of pauses.
VAD_MODELS = SILERO, FSMN, FSMN_DYNAMIC = ("silero", "fsmn", "fsmn-dynamic")
VAD_THRESHOLDS = {SILERO: 0.5, FSMN: 0.8, FSMN_DYNAMIC: 0.75}  # FSMN's are FunASR's 0.6 and 0.5, as probabilities
MIN_PAUSES_S = {SILERO: 0.4, FSMN: 0.8}
AT_LEAST_1, SEGMENT_LIMITS = "it must be at least 1", f"it must be 2 to {MAX_SEGMENT_S} s"
JOIN_LIMITS = "use 0 to --max-segment"
DIALOGUE_HINT = (
    f"perhaps system, then user and assistant in turn, up to {MOST_EARLIER_TURNS} times; the recording comes last"
)
MOST_TEMPERATURE = 2.0  # as in OpenAI's service: above, even the best models write at random
TEMPERATURE_LIMITS = f"it must be 0 (greedy) to {MOST_TEMPERATURE:g}"
SPEAKER_LIMITS = "use auto, none, a number such as 3, or a range such as 2-4"
FLOAT16 = "--dtype float16 overflows in this model: encoder values reach 10,000 and adaptor values exceed 1,000"
BFLOAT16 = "use bfloat16, which takes the same space, or float32"


class Hub(StrEnum):
    """A hub to download checkpoints from."""

    HF = "hf"
    MS = "ms"

    @property
    def label(self) -> str:
        """The hub's own name."""
        return {"hf": "Hugging Face", "ms": "ModelScope"}[self]


DEFAULT_HUB = Hub.HF


class Timestamps(StrEnum):
    """Which times are shown with a text."""

    WORD = "word"
    SEGMENT = "segment"
    NONE = "none"


class Tags(StrEnum):
    """How emotion and sounds are shown with a text. JSON always has them in a separate field."""

    NONE = "none"
    TEXT = "text"
    EMOJI = "emoji"


@dataclass(frozen=True)
class TranscribeOptions:
    """Options for transcribing.

    Attributes:
        language: ISO code or name of the transcript's language. None lets the model detect it.
        hotwords: words to expect.
        prev_text: text that precedes the recording; the first segment continues it. Together with the hotwords,
            it may take up to `MAX_PROMPT_TOKENS` decoder tokens.
        instruction: what to do with the recording, in place of the model's own words. It replaces all that
            language, hotwords and ITN would write into the prompt. The result need not be a transcript then, so
            there is no second opinion.
        dialogue: earlier turns of a conversation, as pairs of role and text: perhaps "system", then "user" and
            "assistant" in turn, at most `MOST_EARLIER_TURNS` times. The recording is the next turn.
        itn: apply inverse text normalisation, such as writing numbers in digits.
        max_tokens: hard limit on the tokens of a segment. None derives the limit from the segment's length.
        exact_tokens: decode exactly this many tokens for each segment, for benchmarks. Ignores the stop token.
        temperature: sampling temperature, at most `MOST_TEMPERATURE`. 0 is greedy: it always takes the most likely
            token.
        top_p: sample from the most likely tokens with this cumulative probability. None samples from all.
        top_k: sample from this number of most likely tokens. None samples from all.
        seed: seed of the random numbers; None is 0. A segment's text does not depend on the rest of its batch.
        confidence: also keep the decoder's confidence for each piece of text.
        ctc: also return the CTC branch's greedy text, if the checkpoint has a CTC branch.
        draft: "auto" uses the CTC branch's text as a draft that the decoder checks several tokens per step, if the
            checkpoint has a CTC branch and this saves time. "off" decodes token by token. The text is the same.
        second_opinion: compare each text with that of the CTC branch, if the checkpoint has one. If they differ
            too much, split the segment and decode it again; warn if that does not help.
        word_times: also return word times, if the model or an aligner provides them.
        segment_times: let a model that divides segments itself do so, and return the times of the pieces.
        translate: also return a translation.
        translate_to: ISO code or name of the language to translate into; None is English, the only one that speech
            models translate into. Others need a translator.
        vad: skip silence (voice activity detection) and end segments in pauses.
        vad_model: which detector: one of `VAD_MODELS`.
        vad_threshold: probability from which a frame counts as speech. None is the detector's own, in
            `VAD_THRESHOLDS`.
        min_pause_s: shortest pause that ends a segment. None is the detector's own, in `MIN_PAUSES_S`; with
            "fsmn-dynamic", it depends on the segment's length and cannot be set.
        join_s: segments shorter than this continue across longer pauses: very short ones up to a tenth of this,
            and at least one second. None fills the windows of a model whose windows all cost the same, and does
            nothing for others.
        max_segment_s: longest segment. None is the longest in the model's training data: `SEGMENT_S` for most.
        batch_size: segments decoded at the same time. None derives it from the available memory.
        speakers: tell speakers apart: the fewest and the most there are; None as the most is no limit. From Python
            also what `parse_speakers` reads, or a number; it is stored as a pair. None does not tell them apart.
        speaker_method: how windows of speech are grouped into speakers: one of `SPEAKER_METHODS`.
        speaker_threshold: mean cosine distance from which two groups of voices are two speakers. None is
            `SPEAKER_THRESHOLD`, or `TELEPHONE_MARGIN` less for telephone sound. FunASR's method has another
            measure.
        speaker_names: names of the speakers, in order of appearance; further ones are numbered.
        known_speakers: a recording of each known speaker, by name: a path or a `Source`. Who sounds like one of
            them gets that name. `speaker_names` are for the others.
        speaker_embeddings: also return what the voice of each speaker is like.
    """

    language: str | None = None
    hotwords: tuple[str, ...] = ()
    prev_text: str | None = None
    instruction: str | None = None
    dialogue: tuple[tuple[str, str], ...] = ()
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
    segment_times: bool = False
    translate: bool = False
    translate_to: str | None = None
    vad: bool = True
    vad_model: str = SILERO
    vad_threshold: float | None = None
    min_pause_s: float | None = None
    join_s: float | None = None
    max_segment_s: float | None = None
    batch_size: int | None = None
    speakers: tuple[int, int | None] | None = None
    speaker_method: str = AVERAGE
    speaker_threshold: float | None = None
    speaker_names: tuple[str, ...] = ()
    known_speakers: Mapping[str, Any] | None = None
    speaker_embeddings: bool = False

    def __post_init__(self) -> None:
        """Raise a UsageError, naming the command-line option, for values out of range or without effect."""
        _refuse_first(
            ("--max-tokens is {}", self.max_tokens, lambda x: x >= 1, AT_LEAST_1),
            ("--exact-tokens is {}", self.exact_tokens, lambda x: x >= 1, AT_LEAST_1),
            ("hotwords is a string", self.hotwords, lambda x: not isinstance(x, str), "pass a tuple of words"),
            ("--temperature is {}", self.temperature, lambda x: 0 <= x <= MOST_TEMPERATURE, TEMPERATURE_LIMITS),
            ("--vad-model is {!r}", self.vad_model, VAD_MODELS.__contains__, _choice(VAD_MODELS)),
            ("--vad-threshold is {}", self.vad_threshold, lambda x: 0 < x < 1, "it must be between 0 and 1"),
            ("--min-pause is {} s", self.min_pause_s, lambda x: 0.1 <= x <= 10, "it must be 0.1 to 10 s"),
            ("--max-segment is {} s", self.max_segment_s, lambda x: 2 <= x <= MAX_SEGMENT_S, SEGMENT_LIMITS),
            ("--join is {} s", self.join_s, lambda x: 0 <= x <= (self.max_segment_s or SEGMENT_S), JOIN_LIMITS),
            (
                "--speaker-method is {!r}",
                self.speaker_method,
                SPEAKER_METHODS.__contains__,
                _choice(SPEAKER_METHODS),
            ),
            (
                "--speaker-threshold is {}",
                self.speaker_threshold,
                lambda x: 0 < x < 2,
                "it must be above 0, below 2",
            ),
            ("--draft is {}", self.draft, DRAFTS.__contains__, _choice(DRAFTS)),
            ("--batch-size is {}", self.batch_size, lambda x: x >= 1, AT_LEAST_1),
            ("--top-p is {}", self.top_p, lambda x: 0 < x <= 1, "it must be above 0 and at most 1"),
            ("--top-k is {}", self.top_k, lambda x: x >= 1, AT_LEAST_1),
            ("--seed is {}", self.seed, lambda x: 0 <= x < 2**63, "it must be at least 0 and below 2**63"),
        )
        object.__setattr__(self, "speakers", _speakers(self.speakers))
        object.__setattr__(self, "dialogue", tuple(map(tuple, self.dialogue)))  # from Python, perhaps lists
        if problem := _dialogue_problem(self.dialogue):
            raise UsageError(f"--dialogue: {problem}", DIALOGUE_HINT, code="option-value")
        if self.instruction is not None:
            if not self.instruction.strip():
                raise UsageError("--instruction is empty", "leave it out", code="option-value")
            unused = ", ".join(name for name, has_effect in self._replaced_by_instruction if has_effect)
            if unused:
                message = f"cannot combine --instruction with {unused}: it replaces this part of the prompt"
                hint = "leave out one of them; an instruction can contain a language and words to expect"
                raise UsageError(message, hint, code="options-conflict")
        if self.translate_to is not None:
            if not self.translate:
                message = f"--translate-to {self.translate_to} has no effect without --translate"
                raise UsageError(message, "add --translate", code="options-conflict")
            code = _known_language(self.translate_to)
            object.__setattr__(self, "translate_to", None if code == ENGLISH else code)
        if self.speakers and not self.vad:
            message = "--speakers needs voice activity detection: silence would be a speaker"
            raise UsageError(message, "leave out --no-vad", code="options-conflict")
        if self.speakers and self.speaker_method == FUNASR:
            fewest, most = self.speakers
            if most not in (None, fewest) or (most is None and fewest > 1):
                message = "--speaker-method funasr takes auto or one number of speakers, not a range"
                raise UsageError(message, "use --speakers auto or a number", code="options-conflict")
            if self.speaker_threshold is not None:
                message = "--speaker-threshold has no effect with --speaker-method funasr"
                raise UsageError(message, "leave out one of them", code="options-conflict")
        sampling = {"--top-p": self.top_p, "--top-k": self.top_k, "--seed": self.seed}
        unused = ", ".join(name for name, value in sampling.items() if value is not None)
        if unused and self.temperature == 0:
            hint = "add --temperature, for example 0.6"
            raise UsageError(f"no effect without a temperature: {unused}", hint, code="options-conflict")
        if self.min_pause_s is not None and self.vad_model not in MIN_PAUSES_S:
            message = f"--min-pause has no effect with --vad-model {self.vad_model}, which sets the pause itself"
            raise UsageError(message, f"use --vad-model {FSMN}", code="options-conflict")

    @property
    def _replaced_by_instruction(self) -> Iterator[tuple[str, bool]]:
        yield "--lang", (self.language or AUTO).strip().casefold() != AUTO
        yield "--hotword", bool(self.hotwords)
        yield "--no-itn", not self.itn

    @property
    def target(self) -> str | None:
        """ISO code of the language to translate into; None without translation."""
        return (self.translate_to or ENGLISH) if self.translate else None


@dataclass(frozen=True)
class ConvertOptions:
    """Options for converting.

    Attributes:
        dtype: type of all tensors that are not quantized.
        quantize: one of `RECIPES` for the decoder's matrices. None leaves them dense.
        quantize_encoder: bits for the encoder's matrices. None leaves them dense.
        group_size: number of values that share a scale. None uses `GROUP_SIZE`.
        languages: codes or names of the checkpoint's languages, stored as codes. None keeps those of the source.
        lora: folder of a LoRA adapter that PEFT has written, which is merged into the checkpoint.
        encoder: file or folder with the encoder of a model that is put together from parts, such as FunASR-Qwen4B;
            None looks in the source.
        adaptor: file with its adaptor.
        llm: folder or hub id with its language model.
        encoder_input: what goes into its encoder, one of `ENCODER_INPUTS`. None is the first.
        verify: how to check the result before it is moved into place. "off" does nothing; "clip" decodes a bundled
            clip with the source and with the result; "full" also compares each stage with PyTorch.
    """

    dtype: str = "bfloat16"
    quantize: str | None = None
    quantize_encoder: int | None = None
    group_size: int | None = None
    languages: tuple[str, ...] | None = None
    lora: Path | None = None
    encoder: str | None = None
    adaptor: str | None = None
    llm: str | None = None
    encoder_input: str | None = None
    verify: str = CLIP

    def __post_init__(self) -> None:
        """Raise a UsageError for options that cannot work."""
        if isinstance(self.quantize, int):  # Python callers naturally pass an integer
            object.__setattr__(self, "quantize", str(self.quantize))
        _refuse_first(
            (FLOAT16, self.dtype, lambda x: x != "float16", BFLOAT16),
            ("--dtype is {!r}", self.dtype, DTYPES.__contains__, _choice(DTYPES)),
            ("--quantize is {!r}", self.quantize, RECIPES.__contains__, _choice(RECIPES)),
            ("--quantize-encoder is {}", self.quantize_encoder, ENCODER_BITS.__contains__, _choice(ENCODER_BITS)),
            ("--encoder-input is {!r}", self.encoder_input, ENCODER_INPUTS.__contains__, _choice(ENCODER_INPUTS)),
            ("--verify is {}", self.verify, VERIFICATIONS.__contains__, _choice(VERIFICATIONS)),
            ("--group-size is {}", self.group_size, GROUP_SIZES.__contains__, _choice(GROUP_SIZES)),
        )
        if isinstance(self.lora, str):  # from Python
            object.__setattr__(self, "lora", Path(self.lora))
        if self.languages is not None:
            object.__setattr__(self, "languages", tuple(map(_known_language, self.languages)))
        if self.group_size is not None and self.quantize is None and self.quantize_encoder is None:
            raise UsageError("--group-size needs quantization", "add --quantize", code="options-conflict")

    @property
    def parts(self) -> dict[str, str]:
        """The parts that are named, by option."""
        named = {"encoder": self.encoder, "adaptor": self.adaptor, "llm": self.llm}
        return {option: name for option, name in named.items() if name is not None}

    @property
    def suffix(self) -> str:
        """Suffix that an adapter and this recipe add to the name of the source, such as ``-4bit``."""
        adapter = f"-{self.lora.resolve().name}" if self.lora else ""
        decoder = {None: "", MIXED: "-mixed"}.get(self.quantize, f"-{self.quantize}bit")
        return adapter + decoder + (f"-encoder{self.quantize_encoder}bit" if self.quantize_encoder else "")


@dataclass(frozen=True)
class ServeOptions:
    """Limits of the server.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        max_upload_mb: largest upload.
        max_requests: requests at the same time, from the first byte of the upload on; more are refused.
        keep_alive_min: minutes for which a model stays loaded that is not in use.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_upload_mb: int = 500
    max_requests: int = 32
    keep_alive_min: float = 30.0


def parse_speakers(text: str) -> tuple[int, int | None] | None:
    """Return the fewest and the most speakers that "auto", "none", "3" or "2-4" stand for; None for "none".

    Raises:
        UsageError: the text is none of these, or a range that ends before it begins.
    """
    if text in (AUTO_SPEAKERS, NO_SPEAKERS):
        return (1, None) if text == AUTO_SPEAKERS else None
    fewest, dash, most = text.partition("-")
    numbers = (fewest, most) if dash else (fewest, fewest)
    if all(each.isascii() and each.isdigit() and len(each) < 10 for each in numbers):
        lowest, highest = map(int, numbers)
        if 1 <= lowest <= highest:
            return lowest, highest
    raise UsageError(f"--speakers is {text!r}", SPEAKER_LIMITS, code="option-value")


def _speakers(stated: object) -> tuple[int, int | None] | None:
    """Return the fewest and the most speakers that a value stands for; raise a `UsageError` for others."""
    if isinstance(stated, str):
        return parse_speakers(stated)
    match (stated, stated) if isinstance(stated, int) else stated:
        case None:
            return None
        case (fewest, most) if type(fewest) is int and fewest >= 1:  # True is an int as well
            if most is None or (type(most) is int and most >= fewest):
                return fewest, most
    raise UsageError(f"--speakers is {stated!r}", SPEAKER_LIMITS, code="option-value")


def _dialogue_problem(turns: tuple[tuple[str, ...], ...]) -> str:
    """Return why earlier turns are not a conversation; empty if they are."""
    if not all(len(turn) == 2 and all(isinstance(each, str) for each in turn) for turn in turns):
        return "a turn is not a pair of role and text"
    roles = [role for role, _ in turns]
    if roles[:1] == ["system"]:
        del roles[0]
    count = len(roles) // 2
    if roles != ["user", "assistant"] * count:
        return f"the roles are {', '.join(role for role, _ in turns)}"
    if count > MOST_EARLIER_TURNS:
        return f"{count} turns, of which the model takes at most {MOST_EARLIER_TURNS}"
    return "" if all(text.strip() for _, text in turns) else "a turn is empty"


def known_hub(name: str) -> Hub:
    """Return the hub of this name; raise a `UsageError` if there is none."""
    _refuse_first(("unknown hub {!r}", name, tuple(Hub).__contains__, _choice(Hub)))
    return Hub(name)


def _known_language(name: str) -> str:
    code = language_code(name)
    if code is None:
        raise UsageError(f"unknown language {name!r}", f"known: {', '.join(LANGUAGES)}", code="language-unknown")
    return code


def _refuse_first(*checks: tuple[str, Any, Callable[[Any], bool], str]) -> None:
    """Raise a `UsageError` for the first value that fails its check.

    Each check is a message, the value, a predicate that must hold, and a hint. None always passes.
    """
    for problem, value, holds, hint in checks:
        if value is not None and not holds(value):
            raise UsageError(problem.format(value), hint, code="option-value")


def _choice(values: Iterable[object]) -> str:
    return f"choose from {', '.join(map(str, values))}"


DEFAULTS = TranscribeOptions()
CONVERT_DEFAULTS = ConvertOptions()
SERVE_DEFAULTS = ServeOptions()
BENCH_TRIALS = 3
