"""A request's fields, in all the spellings that clients use, as what is wanted.

OpenAI's client writes arrays as ``name[]``, repeated, and objects as ``name[key]``. Others write ``name``, JSON in
a string, or one value with commas.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.errors import UsageError
from funasr_cli.languages import AUTO, language_code
from funasr_cli.options import DEFAULTS, MIN_PAUSES_S, VAD_MODELS, TranscribeOptions
from funasr_cli.server.problems import invalid
from funasr_cli.server.speakers import FIND_OUT, LETTERS, SPLIT, Speaking, speaking

JSON, TEXT, SRT, VTT, VERBOSE, DIARIZED = FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
STREAMED = (JSON, TEXT, DIARIZED)
FULL = "full_json"  # not one of OpenAI's; also streamed
WITH_SPEAKERS = (DIARIZED, SRT, VTT, VERBOSE, FULL)  # have a place for them
GRANULARITIES = WORD, SEGMENT = ("word", "segment")
OWN = (
    "file", "model", "language", "languages", "keywords", "hotwords", "context", "prompt", "response_format",
    "temperature", "timestamp_granularities", "stream", "include", "chunking_strategy", "known_speaker_names",
    "known_speaker_references", "spk", "speakers", "channels", "itn", "vad", "vad_model", "translate",
    "to_language",
)  # fmt: skip
SPELLED = re.compile(r"(\w+)(?:\[(\w*)\])?")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
SEPARATORS = re.compile(r"[,;，、；\n]")  # of a list of terms
SENTENCE = re.compile(r"[.!?。！？:：]")
MOST_WORDS, MOST_CHARACTERS = 4, 40  # of a term
# Of keywords and prompt together; the model allows fewer tokens.
MOST_TERMS, MOST_EXPECTED_CHARACTERS = 1000, 20_000
MISSPELT = 0.85  # similarity of an unknown field to one of ours


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

    Attributes:
        model: name; None for the default.
        format: one of `FORMATS`, or `FULL`.
        stream: whether to send events.
        options: as asked for.
        spelled: fields of the request, by field of `TranscribeOptions`, for messages.
        words: whether `verbose_json` has words.
        logprobs: whether the answer has log-probabilities.
        segments: whether `verbose_json` divides segments as finely as the model can.
        translated: whether the answer is the translation, not the transcript.
        speaking: what it says about speakers.
        split: whether each channel is transcribed separately, as one speaker.
        prompt: the client's prompt.
        notes: what the answer says about fields that have no effect.
    """

    model: str | None
    format: str = JSON
    stream: bool = False
    options: TranscribeOptions = DEFAULTS
    spelled: Mapping[str, str] = field(default_factory=dict)
    words: bool = False
    logprobs: bool = False
    segments: bool = False
    translated: bool = False
    speaking: Speaking = Speaking()  # noqa: RUF009 - it is frozen
    split: bool = False
    prompt: str = ""
    notes: tuple[str, ...] = ()

    def telling_apart(self, *, can: bool) -> "Wanted":
        """Return what is wanted of a server that can tell voices apart, or of one that cannot.

        In diarized_json, speakers are then voices, unless the request asks for channels, or the server cannot.

        Raises:
            Problem: the request asks for voices, and the server cannot tell them apart.
        """
        asked, number = self.speaking, self.speaking.number
        if number and not can:
            missing = f"{asked.asked_by!r}: this server has no model that tells speakers apart"
            hint = "on its machine, run: funasr convert campplus"
            raise invalid(asked.asked_by, f"{missing}; {hint}", "unsupported_value")
        split = self.format == DIARIZED and (asked.channels == SPLIT or not can)
        if self.format == DIARIZED and not split:
            number = number or FIND_OUT
        if number and not self.options.vad:
            raise invalid("vad", "'vad' must be true to tell speakers apart: silence would be a speaker")
        names = LETTERS if self.format == DIARIZED else ()
        return replace(self, options=replace(self.options, speakers=number, speaker_names=names), split=split)

    def suited(self, able: Capabilities, *, continues: bool) -> "Wanted":
        """Return what is wanted of a model with these capabilities.

        Args:
            able: its capabilities.
            continues: whether a prompt is the text that precedes a recording, even if it is a list of terms.
        """
        options, notes, subtitles = self.options, list(self.notes), self.format in (SRT, VTT)
        if (subtitles or self.format == FULL) and able.word_times and not self.translated:
            options = replace(options, word_times=True)  # as the command line does
        if options.speakers and able.word_times:  # a segment is cut between words, and then translated
            options = replace(options, word_times=True)
        if self.format == FULL and able.confidence:
            options = replace(options, confidence=True)
        if self.segments or (subtitles and self.translated):  # a translation has no word times
            options = replace(options, segment_times=True)
        prose = able.context_text and not terms_in(self.prompt)
        if self.prompt and (continues or prose) and able.previous_text:
            options = replace(options, prev_text=self.prompt)
        elif self.prompt and (terms := terms_in(self.prompt)) and able.hotwords:
            options = replace(options, hotwords=tuple(dict.fromkeys((*options.hotwords, *terms))))
        elif self.prompt:
            notes.append("the prompt has no effect: " + ("this model takes none" if terms_in(self.prompt) else
                         "it is not a list of terms"))  # fmt: skip
        return replace(self, options=options, notes=tuple(notes))


def terms_in(prompt: str) -> tuple[str, ...]:
    """Return the terms of a prompt that is a list of short terms; none if it is prose."""
    terms = [term.strip() for term in SEPARATORS.split(prompt) if term.strip()]
    short = all(len(term.split()) <= MOST_WORDS and len(term) <= MOST_CHARACTERS for term in terms)
    return tuple(terms) if short and not SENTENCE.search(prompt) else ()


class Fields:
    """The values of a request, by name without brackets."""

    def __init__(self, fields: Sequence[tuple[str, Any]]):
        self._values: dict[str, list[Any]] = {}
        self._repeated: set[str] = set()
        for spelled, value in fields:
            match = SPELLED.fullmatch(spelled)
            name, key = (match[1], match[2]) if match else (spelled, None)
            values = self._values.setdefault(name, [])
            if key:
                if not values or not isinstance(values[-1], dict):
                    values.append({})
                values[-1][key] = value
            else:
                values += value if isinstance(value, list) else [value]
                if key is not None or isinstance(value, list):
                    self._repeated.add(name)
        for name in self._values.keys() - set(OWN):
            if near := difflib.get_close_matches(name, OWN, n=1, cutoff=MISSPELT):
                raise invalid(name[:50], f"unknown field {name[:50]!r}: did you mean {near[0]!r}?")

    def text(self, name: str) -> str | None:
        """Return a text; None if it is missing or empty."""
        values = [value for value in self._values.get(name, []) if value not in (None, "")]
        if not values:
            return None
        if isinstance(values[-1], dict | list):
            raise invalid(name, f"{name!r} must be one value")
        return str(values[-1]).strip() or None

    def texts(self, name: str, *, separated: bool = True) -> tuple[str, ...]:
        """Return a list of texts. A single value may be a list in JSON, or `separated`, with commas."""
        values = self._values.get(name, [])
        if len(values) == 1 and name not in self._repeated:
            values = _listed(values[0], separated=separated)
        if any(isinstance(value, dict | list) for value in values):
            raise invalid(name, f"{name!r} must be a list of texts")
        return tuple(text for value in values if value is not None and (text := str(value).strip()))

    def truth(self, name: str, default: bool) -> bool:
        """Return a boolean."""
        if (text := self.text(name)) is None:
            return default
        if text.casefold() not in (*TRUE, *FALSE):
            raise invalid(name, f"{name!r} must be true or false")
        return text.casefold() in TRUE

    def number(self, name: str) -> float | None:
        """Return a number."""
        return None if (text := self.text(name)) is None else _number(name, text)

    def choice(self, name: str, known: Sequence[str], default: str) -> str:
        """Return one of the known values."""
        if (text := self.text(name) or default) not in known:
            raise invalid(name, f"{name!r} must be one of {', '.join(known)}", "invalid_value")
        return text

    def thing(self, name: str) -> dict[str, Any] | str | None:
        """Return an object, or a text in its place."""
        values = self._values.get(name, [])
        value = values[-1] if values else None
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _json(name, value)
        return value if isinstance(value, dict) else self.text(name)


def _listed(value: Any, *, separated: bool) -> list[Any]:
    """Return the elements of a list that is written as JSON or, if it is `separated`, with commas."""
    if not isinstance(value, str):
        return [value]
    if value.lstrip().startswith("["):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list):
            return listed
    return [part for part in SEPARATORS.split(value) if part.strip()] if separated else [value]


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(name, f"{name!r} is not JSON") from error


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # the last one for whole numbers of more than 308 digits
        number = float("nan")
    if isinstance(value, bool) or not isfinite(number):
        raise invalid(name, f"{name!r} must be a number")
    return number


def wanted(given: Sequence[tuple[str, Any]], model: str | None = None, *, translate: bool = False) -> Wanted:
    """Return what a request asks for.

    Args:
        given: the names and values of the request's fields.
        model: from the path; None takes the field.
        translate: whether it asks for a translation instead of a transcript, by its path.

    Raises:
        Problem: a value cannot be right, regardless of the model.
    """
    fields = Fields(given)
    format = fields.choice("response_format", (*FORMATS, FULL), JSON)
    stream = fields.truth("stream", default=False)
    if stream and format not in (*STREAMED, FULL):
        raise invalid(
            "stream", f"'stream' works with {', '.join((*STREAMED, FULL))}, not with {format}", "unsupported_value"
        )
    granularities = fields.texts("timestamp_granularities")
    if unknown := set(granularities) - set(GRANULARITIES):
        raise invalid(
            "timestamp_granularities", f"unknown granularity {min(unknown)[:50]!r}; there are word, segment"
        )
    if granularities and format != VERBOSE:
        needed = "'timestamp_granularities' needs the response_format verbose_json"
        raise invalid("timestamp_granularities", needed, "unsupported_value")
    include = fields.texts("include")
    if set(include) - {"logprobs"} or (include and format != JSON):
        raise invalid(
            "include", "'include' takes only logprobs, with the response_format json", "unsupported_value"
        )
    options, spelled, notes = _options(fields)
    if include:
        options, spelled["confidence"] = _set(options, "include", confidence=True), "include"
    if translate or fields.truth("translate", default=False):
        options, spelled["translate"] = replace(options, translate=True), "translate"
        _refuse_with_translation(format, translated=translate, words=WORD in granularities, logprobs=bool(include))
    if to := fields.text("to_language"):
        if not options.translate or language_code(to) is None:
            needs = "needs 'translate'" if not options.translate else f"unknown language {to[:50]!r}"
            raise invalid("to_language", f"'to_language': {needs}", "unsupported_value")
        options, spelled["translate_to"] = replace(options, translate_to=to), "to_language"
    prompt = fields.text("prompt") or ""
    terms, length = [*options.hotwords, *terms_in(prompt)], sum(map(len, (*options.hotwords, prompt)))
    if len(terms) > MOST_TERMS or length > MOST_EXPECTED_CHARACTERS:  # before the model counts their tokens
        limit = f"more than {MOST_TERMS:,} terms or {MOST_EXPECTED_CHARACTERS:,} characters to expect"
        raise invalid("prompt" if prompt else "keywords", limit, "prompt-too-long")
    if WORD in granularities:
        options = _set(options, "timestamp_granularities", word_times=True)
        spelled["word_times"] = "timestamp_granularities"
    asked = speaking(fields, format, WITH_SPEAKERS, DIARIZED)
    spelled["speakers"] = asked.asked_by
    return Wanted(
        model or fields.text("model"), format, stream, options, spelled, WORD in granularities, bool(include),
        format == VERBOSE and granularities != (WORD,), translate,
        asked, prompt=prompt, notes=tuple(notes),
    )  # fmt: skip


def _refuse_with_translation(format: str, *, translated: bool, words: bool, logprobs: bool) -> None:
    """Raise a `Problem` for what a translation does not have, or for a format without a place for it."""
    if translated and (words or logprobs):
        name = "timestamp_granularities" if words else "include"
        missing = "a translation has neither word times nor log-probabilities"
        raise invalid(name, f"{name!r}: {missing}", "unsupported_value")
    if not translated and format not in (JSON, VERBOSE, FULL):
        there = (
            "'translate' works with json, verbose_json and full_json; for others use the endpoint of translations"
        )
        raise invalid("translate", there, "unsupported_value")


def _options(fields: Fields) -> tuple[TranscribeOptions, dict[str, str], list[str]]:
    """Return the options, the fields that they come from, and notes about fields without effect."""
    options, spelled, notes = DEFAULTS, dict[str, str](), list[str]()
    languages = fields.texts("languages")
    language = fields.text("language") or (languages[0] if len(languages) == 1 else None)
    if len(languages) > 1:
        notes.append("several languages: the model chooses among all that it knows")
    if language and language.casefold() != AUTO:
        options, spelled["language"] = replace(options, language=language), "language"
    for name in ("keywords", "hotwords", "context"):
        if words := fields.texts(name):
            options = replace(options, hotwords=tuple(dict.fromkeys((*options.hotwords, *words))))
            spelled["hotwords"] = name
    if temperature := fields.number("temperature"):
        options, spelled["temperature"] = _set(options, "temperature", temperature=temperature), "temperature"
    if fields.text("itn") is not None:
        options, spelled["itn"] = replace(options, itn=fields.truth("itn", default=True)), "itn"
    vad, vad_model = fields.truth("vad", default=True), fields.choice("vad_model", VAD_MODELS, DEFAULTS.vad_model)
    if not vad and fields.text("vad_model"):
        raise invalid("vad_model", "'vad_model' has no effect without 'vad'", "unsupported_value")
    options = replace(options, vad=vad, vad_model=vad_model)
    name = "chunking_strategy"
    strategy = fields.thing(name)
    if isinstance(strategy, dict):
        if strategy.get("type", "server_vad") != "server_vad":
            raise invalid(name, f"{name!r} must be auto, or an object of the type server_vad")
        if not vad:
            raise invalid(name, f"{name!r} has no effect without 'vad'", "unsupported_value")
        if strategy.get("threshold") is not None:
            options = _set(options, name, vad_threshold=_number(name, strategy["threshold"]))
        if strategy.get("silence_duration_ms") is not None:
            if vad_model not in MIN_PAUSES_S:
                idle = f"'silence_duration_ms' has no effect with the 'vad_model' {vad_model}"
                raise invalid(name, idle, "unsupported_value")
            options = _set(options, name, min_pause_s=_number(name, strategy["silence_duration_ms"]) / 1000)
        if strategy.get("prefix_padding_ms") is not None:
            notes.append("prefix_padding_ms has no effect: 0.2 s before and after speech are kept")
    elif strategy not in (None, "auto"):
        raise invalid(name, f"{name!r} must be auto, or an object of the type server_vad")
    return options, spelled, notes


def _set(options: TranscribeOptions, name: str, **change: Any) -> TranscribeOptions:
    """Return changed options; raise a `Problem` that names the request's field if a value is out of range."""
    try:
        return replace(options, **change)
    except UsageError as error:
        [value] = change.values()
        raise invalid(name, f"{name!r}: {value:g} is out of range: {error.hint}", "invalid_value") from error
