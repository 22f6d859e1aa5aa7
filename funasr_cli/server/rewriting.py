"""Write a transcript that a client sends, with corrections for example, in one of the command line's formats."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from funasr_cli.server.problems import Problem, invalid
from funasr_cli.server.replies import JSON_TYPE, TYPES, encodable
from funasr_cli.server.uploads import MOST_JSON_BYTES, counted
from funasr_cli.transcript import Segment, TimedText, Transcript, Word
from funasr_cli.writers import WRITERS

LONGEST_S = 1e6  # of a recording, eleven days
MOST_CHARACTERS = 50_000  # of a segment, far above any real one; the time for subtitles grows faster than the text


async def rewritten(request: Request) -> Response:
    """Answer `POST /transcripts/FORMAT`: the body is a transcript, as `full_json` has it.

    Fields that follow from others, such as the text of the whole recording, are computed again.
    """
    format = request.path_params["format"]
    if format not in WRITERS:
        raise Problem(404, f"no format {format[:50]!r}; there are {', '.join(WRITERS)}", "not_found")
    try:
        body = await counted(request, MOST_JSON_BYTES).body()
    except ClientDisconnect:  # so no answer is needed
        return Response()
    text = await asyncio.to_thread(_written, body, format)
    return Response(
        encodable(text), media_type=TYPES.get(format, JSON_TYPE if format == "json" else TYPES["text"])
    )


def _written(body: bytes, format: str) -> str:
    try:
        transcript = msgspec.json.decode(body, type=Transcript)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(None, f"not a transcript: {error}") from error
    _refuse_disorder(transcript.segments, transcript.start_s, transcript.start_s + transcript.duration_s)
    for segment in transcript.segments:
        if len(segment.text) > MOST_CHARACTERS:
            longest = f"a segment's text has more than {MOST_CHARACTERS:,} characters"
            raise invalid(None, longest, "invalid_value")
        for parts in (segment.words, segment.pieces):
            _refuse_disorder(parts, 0.0, LONGEST_S)  # aligned words may begin a little before their segment
            _refuse_absent(parts, segment.text)
    return WRITERS[format](transcript)


def _refuse_disorder(parts: Iterable[Segment | Word | TimedText], start_s: float, end_s: float) -> None:
    """Raise a `Problem` unless parts are in order and within the times of the whole."""
    times = [start_s, *(time_s for part in parts for time_s in (part.start_s, part.end_s))]
    if not 0 <= start_s <= end_s <= LONGEST_S or any(later < time for time, later in pairwise(times)):
        raise invalid(None, "not a transcript: times are not in order", "invalid_value")


def _refuse_absent(parts: Iterable[Word | TimedText], text: str) -> None:
    """Raise a `Problem` for a part that is not in the text, or not in this order."""
    place = 0
    for part in parts:
        if (place := text.find(part.text, place)) < 0:
            raise invalid(
                None, f"not a transcript: {part.text[:50]!r} is not in its segment's text", "invalid_value"
            )
        place += len(part.text)
