"""Events of a transcription as server-sent events, as OpenAI sends them.

A delta cannot be taken back, so only final segments are sent. The deltas of a request joined are the text of its
last event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from funasr_cli.server import replies
from funasr_cli.server.fields import DIARIZED, FULL, Wanted
from funasr_cli.transcript import Segment, Transcript, join_texts

TYPE = "text/event-stream; charset=utf-8"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
COMMENT = ": \n\n"  # keeps proxies awake


@dataclass
class Stream:
    """The events of a request so far."""

    text: str = ""
    _count: int = 0  # segments with text

    def segment(self, segment: Segment, wanted: Wanted) -> str:
        """Return the lines for a final segment; none if it has no text."""
        if not segment.text:
            return ""
        before, self.text = self.text, join_texts([self.text, segment.text])
        delta = {"type": "transcript.text.delta", "delta": self.text[len(before) :]}
        name, self._count = f"seg_{self._count}", self._count + 1
        if wanted.format not in (DIARIZED, FULL):
            return line(replies.written(delta))
        spoken = replies.spoken(name, segment)
        return line(replies.written(delta | {"segment_id": name})) + line(replies.written(spoken))

    def done(self, transcripts: Sequence[Transcript], wanted: Wanted) -> str:
        """Return the last lines."""
        longest = max(transcripts, key=lambda one: one.duration_s)
        last = {"type": "transcript.text.done", "text": self.text, "usage": replies.usage(longest)}
        last |= replies.translation(transcripts[0], wanted) | replies.logprobs(transcripts[0], wanted)
        last |= replies.warnings(transcripts, wanted)
        written = replies.written(last)
        if wanted.format == FULL:
            written = f'{written[:-1]}, "transcript": {replies.full(transcripts[0], wanted)}}}'
        return line(written) + line("[DONE]")


def line(data: str) -> str:
    """Return an event with this data, which is on one line."""
    return f"data: {data}\n\n"
