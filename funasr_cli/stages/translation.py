"""Translation of a recording: a language model translates the text of each segment on its own.

A segment waits a moment for others, since several texts together take little longer than one. What the model
writes is kept as it is. If it writes nothing, does not end or repeats itself, the sentences are translated one by
one; if that does not help either, the segment stays, and says so.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from funasr_cli.characters import one_line
from funasr_cli.errors import FunASRError
from funasr_cli.linebreaks import Words
from funasr_cli.scheduling.events import Event, Failed, Finished, SegmentFinished
from funasr_cli.text_generator import TextGenerator
from funasr_cli.text_model import TextModel, TextResult
from funasr_cli.transcript import Segment, Transcript, Translation, join_texts

MOST_HELD = 16  # segments translated together
LONGEST_WAIT_S = 2.0  # for further segments; looked at when an event comes


class Translator:
    """The stage of one recording; see `EventStage`."""

    option = "--translator with a smaller model"

    def __init__(
        self,
        model: TextModel,
        target: str,
        language: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Take the model and languages as ISO codes.

        Args:
            model: translates.
            target: the language to translate into. Text that is in it already is copied.
            language: the spoken language that was asked for; None takes the one that each segment states.
            clock: returns seconds.
        """
        self.name, self._writer = model.name, TextGenerator(model)
        self._target, self._language = target, language
        self._clock, self._since = clock, 0.0
        self._held: list[SegmentFinished] = []
        self._made: dict[tuple[float, float, str], Translation] = {}  # by start, end and text of the segment
        self._warnings: list[str] = []
        self._spent_s = 0.0

    def __call__(self, event: Event) -> Iterator[Event]:
        """Hold segments back for a moment, and yield them with their translations."""
        if isinstance(event, SegmentFinished):
            self._since = self._since if self._held else self._clock()
            self._held.append(event)
        waited = bool(self._held) and self._clock() - self._since >= LONGEST_WAIT_S
        if waited or len(self._held) >= MOST_HELD or isinstance(event, Finished | Failed):
            yield from self._released()
        if isinstance(event, Finished):
            yield replace(event, transcript=self._transcript(event.transcript))
        elif not isinstance(event, SegmentFinished):
            yield event

    def _released(self) -> Iterator[SegmentFinished]:
        """Yield all segments that are held back, translated."""
        held, self._held = self._held, []
        translated = self._translated([event.segment for event in held])
        yield from (replace(event, segment=each) for event, each in zip(held, translated, strict=True))

    def _translated(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return segments with their translations, which are made unless they have been."""
        began = time.perf_counter()
        keys = [(segment.start_s, segment.end_s, segment.text) for segment in segments]
        pairs = zip(keys, segments, strict=True)
        missing = {key: segment for key, segment in pairs if key not in self._made}
        foreign = [key for key, segment in missing.items() if self._is_foreign(segment)]
        self._made |= {key: Translation(key[-1], self._target) for key in missing}
        self._made |= zip(foreign, self._translations([text for *_, text in foreign]), strict=True)
        self._spent_s += time.perf_counter() - began
        return [replace(segment, translation=self._made[key]) for key, segment in zip(keys, segments, strict=True)]

    def _is_foreign(self, segment: Segment) -> bool:
        """Return whether there is something to translate."""
        return bool(segment.text.strip()) and (self._language or segment.language) != self._target

    def _translations(self, texts: Sequence[str]) -> list[Translation]:
        """Translate texts together; each alone if that fails, so that one text does not cost the others theirs."""
        if not texts:
            return []
        try:
            written = self._writer.translate_batch(texts, self._target)
            written = list(map(self._repaired, texts, written))
        except (FunASRError, MemoryError, RuntimeError) as error:  # MLX raises the last when the device fails
            if len(texts) == 1:
                self._warnings.append(f"translation by {self.name}: {error}")
                return [Translation("", self._target, stop_reason="error")]
            return [each for text in texts for each in self._translations([text])]
        return [
            Translation(
                each.text.strip(), self._target, mean_logprob=each.mean_logprob,
                stop_reason="empty" if each.complete and not _is_good(each) else each.stop_reason,
            )
            for each in written
        ]  # fmt: skip

    def _repaired(self, text: str, whole: TextResult) -> TextResult:
        """Return the translations of a text's sentences if that of the whole failed and none of them does."""
        words = Words(one_line(text), sys.maxsize)
        sentences = [words.line(*span) for span in pairwise([0, *words.sentence_ends])]
        if _is_good(whole) or whole.stop_reason == "nonfinite" or len(sentences) < 2:
            return whole
        parts = self._writer.translate_batch(sentences, self._target)
        if not all(map(_is_good, parts)):
            return whole
        tokens = sum(part.tokens for part in parts)
        logprob = sum(part.tokens * (part.mean_logprob or 0.0) for part in parts) / tokens
        return TextResult(join_texts(part.text.strip() for part in parts), tokens, "eos", logprob)

    def _transcript(self, transcript: Transcript) -> Transcript:
        """Put the translations into the transcript, and warn of those that are not complete."""
        segments = tuple(self._translated(transcript.segments))  # another stage may have changed some
        problems = (
            f"{segment.start_s:.1f}-{segment.end_s:.1f} s: {segment.translation.problem}"
            for segment in segments
            if segment.translation and segment.translation.problem
        )
        return replace(
            transcript,
            segments=segments,
            timings=replace(transcript.timings, post_s=transcript.timings.post_s + self._spent_s),
            warnings=(*transcript.warnings, *problems, *dict.fromkeys(self._warnings)),
            translated_by=self.name,
        )


def _is_good(written: TextResult) -> bool:
    """Return whether a model ended its text, and wrote something."""
    return written.complete and bool(written.text.strip())
