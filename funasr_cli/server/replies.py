"""Transcripts as the bodies of OpenAI's formats. Values are measured; what a model cannot say is left out or 0."""

import dataclasses
import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from funasr_cli.formats import as_json_line
from funasr_cli.server.fields import DIARIZED, FULL, SRT, TEXT, VERBOSE, VTT, Wanted
from funasr_cli.transcript import Segment, TimedText, Transcript, join_texts
from funasr_cli.writers import WRITERS

JSON_TYPE = "application/json"
TYPES = {
    TEXT: "text/plain; charset=utf-8", SRT: "text/plain; charset=utf-8", VTT: "text/vtt; charset=utf-8",
}  # fmt: skip
UNKNOWN = "unknown"  # the language, if it was neither requested nor detected
FRAMES_A_SECOND = 100  # of `seek`


def content_type(wanted: Wanted) -> str:
    """Return the content type of the answer."""
    return TYPES.get(wanted.format, JSON_TYPE)


def body(transcripts: Sequence[Transcript], wanted: Wanted) -> str:
    """Return the body of an answer: of one transcript, or with `diarized_json` of one for each channel."""
    transcript = transcripts[0]
    if wanted.format == TEXT:
        return encodable(transcript.text)
    if wanted.format in (SRT, VTT):
        return WRITERS[wanted.format](transcript)
    if wanted.format == VERBOSE:
        return written(verbose(transcript, wanted))
    if wanted.format == DIARIZED:
        return written(diarized(transcripts, wanted))
    if wanted.format == FULL:
        return full(transcript, wanted)
    return written(plain(transcript, wanted))


def written(data: Any) -> str:
    """Return data as JSON that UTF-8 can encode, on one line."""
    return encodable(json.dumps(data, ensure_ascii=False, allow_nan=False))


def encodable(text: str) -> str:
    """Return a text without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def usage(transcript: Transcript) -> dict[str, Any]:
    """Return what the request used: seconds of audio."""
    return {"type": "duration", "seconds": round(transcript.duration_s, 3)}


def plain(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    """Return the answer in the format json."""
    always = {"text": transcript.text, **translation(transcript, wanted), "usage": usage(transcript)}
    return always | logprobs(transcript, wanted) | warnings([transcript], wanted)


def translation(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    """Return the translation, if it is wanted in addition to the transcript."""
    both = wanted.options.translate and not wanted.translated
    return {"translation": transcript.translated.text} if both else {}


def notes(transcripts: Sequence[Transcript], wanted: Wanted) -> list[str]:
    """Return what the answer says about fields that have no effect, and about speech without a complete text."""
    incomplete = [one for one in transcripts if not one.complete]
    return [*wanted.notes, *(note for one in incomplete for note in (*one.warnings, one.fault) if note)]


def warnings(transcripts: Sequence[Transcript], wanted: Wanted) -> dict[str, Any]:
    """Return the notes, if there are any, for an answer in JSON."""
    found = notes(transcripts, wanted)
    return {"warnings": found} if found else {}


def logprobs(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    """Return the log-probabilities, if they are wanted."""
    scores = [score for segment in transcript.segments for score in segment.scores]
    found = [
        {"token": one.text, "bytes": list(one.text.encode("utf-8", "replace")), "logprob": _log(one.probability)}
        for one in scores
    ]
    return {"logprobs": found} if wanted.logprobs else {}


def verbose(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    """Return the answer in the format verbose_json, and add ledger, completeness and warnings."""
    words = [
        {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
        for segment in transcript.segments
        for word in segment.words
    ]
    parts = [(segment, part) for segment in transcript.segments for part in segment.pieces or (segment,)]
    return {
        "task": "translate" if wanted.translated else "transcribe",
        "language": wanted.options.target if wanted.translated else language_of(transcript),
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        **translation(transcript, wanted),
        "segments": [_segment(number, *each, wanted) for number, each in enumerate(parts)],
        **({"words": words} if wanted.words else {}),
        "usage": usage(transcript),
        "ledger": dataclasses.asdict(transcript.ledger),
        "complete": transcript.complete,
        "warnings": [*wanted.notes, *transcript.warnings, *filter(None, [transcript.fault])],
    }


def full(transcript: Transcript, wanted: Wanted) -> str:
    """Return the answer in the format full_json, as JSON: everything, as the command line writes it."""
    return as_json_line(replace(transcript, warnings=(*wanted.notes, *transcript.warnings))).rstrip()


def language_of(transcript: Transcript) -> str:
    """Return the language that was asked for, else the one found most often, else `UNKNOWN`."""
    found = Counter(segment.language for segment in transcript.segments if segment.language)
    return transcript.language or next((code for code, _ in found.most_common(1)), UNKNOWN)


def _segment(number: int, segment: Segment, part: Segment | TimedText, wanted: Wanted) -> dict[str, Any]:
    """Return a part of a segment. As in OpenAI's answers, the figures are those of the whole segment."""
    text = segment.text.encode("utf-8", "replace")
    return {
        "id": number,
        "seek": round(segment.start_s * FRAMES_A_SECOND),
        "start": round(part.start_s, 3),
        "end": round(part.end_s, 3),
        "text": part.text,
        "tokens": [],
        "temperature": wanted.options.temperature,
        "avg_logprob": segment.mean_logprob or 0.0,
        "compression_ratio": len(text) / len(zlib.compress(text)) if text else 0.0,
        "no_speech_prob": segment.no_speech_probability or 0.0,
    }


def diarized(transcripts: Sequence[Transcript], wanted: Wanted) -> dict[str, Any]:
    """Return the answer in the format diarized_json: a speaker for each channel."""
    parts = sorted(
        (
            (channel, segment)
            for channel, one in enumerate(transcripts)
            for segment in one.segments
            if segment.text
        ),
        key=lambda part: (part[1].start_s, part[0]),
    )
    longest = max(transcripts, key=lambda one: one.duration_s)
    return {
        "task": "translate" if wanted.translated else "transcribe",
        "duration": round(longest.duration_s, 3),
        "text": join_texts(segment.text for _, segment in parts),
        "segments": [spoken(f"seg_{number}", *part) for number, part in enumerate(parts)],
        "usage": usage(longest),
        **warnings(transcripts, wanted),
    }


def spoken(name: str, channel: int, segment: Segment) -> dict[str, Any]:
    """Return a segment with its speaker, in diarized_json and as an event."""
    return {
        "type": "transcript.text.segment",
        "id": name,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "speaker": speaker_of(channel),
    }


def speaker_of(channel: int) -> str:
    """Return the name of the speaker in a channel: A, B ... Z, then numbers."""
    return chr(ord("A") + channel) if channel < 26 else str(channel + 1)


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-30))
