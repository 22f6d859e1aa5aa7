"""Speakers in a request: who is asked for, recordings of known speakers, and names in the answer."""

import base64
import binascii
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from funasr_cli.audio.decode import Audio, open_recording, read_whole
from funasr_cli.errors import AudioError, UsageError
from funasr_cli.options import NO_SPEAKERS, parse_speakers
from funasr_cli.server.problems import Problem, invalid

if TYPE_CHECKING:
    from funasr_cli.server.fields import Fields

MIX, SPLIT = CHANNELS = ("mix", "split")
NAMES, REFERENCES = "known_speaker_names", "known_speaker_references"
LETTERS = tuple(ascii_uppercase)  # names of speakers in diarized_json, as OpenAI's service gives them
MOST_KNOWN, MOST_NAME_CHARACTERS = 4, 100
LONGEST_REFERENCE_S = 30.0
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
FIND_OUT: tuple[int, int | None] = (1, None)


@dataclass(frozen=True)
class Speaking:
    """What a request says about speakers.

    Attributes:
        number: the fewest and the most; None if it does not ask who speaks.
        known: recordings of known speakers, as the bytes of files, by name.
        channels: `MIX` or `SPLIT`; None if it leaves that to the server.
        asked_by: the field that asks who speaks, for messages.
    """

    number: tuple[int, int | None] | None = None
    known: Mapping[str, bytes] = field(default_factory=dict)
    channels: str | None = None
    asked_by: str = "response_format"


def speaking(fields: "Fields", format: str, shown_in: tuple[str, ...], diarized: str) -> Speaking:
    """Return what a request says about speakers.

    Args:
        fields: the request's fields.
        format: of its answer.
        shown_in: formats that have a place for speakers.
        diarized: the one of them that always has speakers.

    Raises:
        Problem: a value cannot be right, or two do not go together.
    """
    number: tuple[int, int | None] | None = None
    asked_by = "response_format"
    if fields.truth("spk", default=False):
        number, asked_by = FIND_OUT, "spk"
    if text := fields.text("speakers"):
        try:
            number, asked_by = parse_speakers(text), "speakers"
        except UsageError as error:
            raise invalid("speakers", f"'speakers': {error.hint}", "invalid_value") from error
        if number is None and format == diarized:
            raise invalid("speakers", f"'speakers' cannot be {NO_SPEAKERS} with {diarized}", "unsupported_value")
    if known := _known(fields):
        number, asked_by = number or FIND_OUT, asked_by if number else NAMES
    if number and format not in shown_in:
        needed = f"{asked_by!r} needs the response_format {', '.join(shown_in)}"
        raise invalid(asked_by, needed, "unsupported_value")
    channels = fields.choice("channels", CHANNELS, MIX) if fields.text("channels") else None
    if channels == SPLIT and (number or format != diarized):
        needed = f"'channels' can be {SPLIT} only with {diarized}, where each channel is then one speaker"
        raise invalid("channels", needed, "unsupported_value")
    return Speaking(number, known, channels, asked_by)


def _known(fields: "Fields") -> dict[str, bytes]:
    """Return recordings of known speakers, by name."""
    names, references = fields.texts(NAMES), fields.texts(REFERENCES, separated=False)
    if len(names) != len(references) or len(names) > MOST_KNOWN:
        wrong = REFERENCES if len(references) > MOST_KNOWN or len(references) < len(names) else NAMES
        pairs = f"{NAMES!r} and {REFERENCES!r} go together: up to {MOST_KNOWN} of each, in the same order"
        raise invalid(wrong, pairs, "invalid_value")
    if len({*names}) < len(names) or any(len(name) > MOST_NAME_CHARACTERS for name in names):
        raise invalid(NAMES, f"{NAMES!r}: names must differ, and be short", "invalid_value")
    return {name: _decoded(url) for name, url in zip(names, references, strict=True)}


def _decoded(url: str) -> bytes:
    if not (start := DATA_URL.match(url)):
        raise invalid(REFERENCES, f"{REFERENCES!r} must be data URLs in base64, as in data:audio/wav;base64,...")
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(REFERENCES, f"{REFERENCES!r}: not base64") from error


def heard(known: Mapping[str, bytes], rate_hz: int, folder: Path) -> dict[str, Audio]:
    """Return the recordings of known speakers, decoded.

    Args:
        known: bytes of files, by name.
        rate_hz: sample rate of the result.
        folder: where files may be for a moment.

    Raises:
        Problem: one cannot be read, or is too long.
    """
    found = {}
    for place, (name, content) in enumerate(known.items(), 1):
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(content)
            file.flush()
            try:
                source = open_recording(file.name, rate_hz, name=f"recording {place}")
                found[name] = read_whole(source, LONGEST_REFERENCE_S)
            except AudioError as error:
                raise unusable(error) from error
    return found


def unusable(error: AudioError) -> Problem:
    """Return the answer to a recording of a known speaker that is of no use."""
    return invalid(REFERENCES, f"{REFERENCES!r}: {error.message}", error.code)
