"""Which segments are decoded when: batches across recordings, and second attempts."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from math import ceil

from funasr_cli.decoding.agreement import compare, said_before
from funasr_cli.decoding.batch import BatchDecoder, Token
from funasr_cli.decoding.ctc import CTCReading
from funasr_cli.decoding.draft import CTCDraft, SpellingMemory
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import Quota, StoppingCriteria, StopReason, token_budget, without_loop
from funasr_cli.decoding.text import TextStream, clean_text, thinking
from funasr_cli.decoding.words import time_words
from funasr_cli.errors import FunASRError
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.families.fun_asr_nano.stages import Stages
from funasr_cli.languages import resolve_language
from funasr_cli.measure import available_bytes
from funasr_cli.models.adaptor import audio_token_count
from funasr_cli.options import AUTO_DRAFT, TranscribeOptions
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.scheduling.intake import Arrival, Opened, Opener, Prefetcher, Speech, read_sources
from funasr_cli.scheduling.recording_state import Attempt, Book
from funasr_cli.transcript import Segment, Word

PREFILL_ROWS = 4  # read together: enough to keep the processor busy, few enough not to hold up the others
MAX_RETRIES = 2
MAX_BATCH = 16  # rows beyond that add little on the machines measured
GATHER_S = 0.2  # how long an idle model waits for more speech to fill a batch


@dataclass
class Row:
    """A segment that is being decoded."""

    speech: Speech
    stream: TextStream
    stopping: StoppingCriteria
    ctc: CTCReading | None
    draft: CTCDraft | None
    logprobs: list[float] = field(default_factory=list)


class Scheduler:
    """Transcribes recordings with one batch whose rows are their segments.

    Segments wait in order. Whenever rows are free, the one that has waited longest joins, and with it those that
    are most like it in length; so padding is short, and none waits forever.
    """

    def __init__(self, recognizer: Stages, options: TranscribeOptions):
        self._recognizer = recognizer
        self._options = options
        self._language = resolve_language(options.language, recognizer.config.prompt.languages)
        # Refuses bad hotwords. What stands in front of the audio is the same for all.
        before, after = prompt_token_ids(options, recognizer.config.prompt, recognizer.loaded.tokenizer)
        self._shared_rows = len(before)
        self._batch_size = options.batch_size or self._rows_that_fit(len(before) + len(after))
        self._waiting: list[Speech] = []
        self._rows: dict[int, Row] = {}
        self._books: dict[int, Book] = {}
        self._stage = ""  # the current computation
        self._in_work: list[Speech] = []  # what it is about
        self._decoder = self._new_decoder()
        has_ctc = recognizer.config.ctc is not None
        self._drafts = has_ctc and options.draft == AUTO_DRAFT
        self._compares = options.second_opinion and options.exact_tokens is None
        self._hears = has_ctc and (self._drafts or self._compares or options.ctc or options.word_times)
        self._memory = SpellingMemory()

    def _rows_that_fit(self, text_tokens: int) -> int:
        """Choose as many as pay, if half of the free memory holds their keys and values, twice while rows join."""
        config, llm = self._recognizer.config, self._recognizer.loaded.model.llm
        longest_s = self._options.max_segment_s
        audio_tokens = audio_token_count(ceil(longest_s / config.frontend.row_duration_s), config.adaptor)
        columns = text_tokens + audio_tokens + token_budget(longest_s)
        row_bytes = 2 * columns * llm.config.cache_values_a_token * llm.model.norm.weight.dtype.size
        return max(1, min(MAX_BATCH, available_bytes() // 2 // row_bytes))

    def _new_decoder(self) -> BatchDecoder:
        return BatchDecoder(self._recognizer.loaded.model.llm, make_sampler(self._options), self._shared_rows)

    def run(self, openers: Iterable[Opener]) -> Iterator[Event]:
        """Events until every recording has come to its `Finished` or `Failed`."""
        arrivals = read_sources(openers, self._options)
        with closing(Prefetcher(arrivals, limit=2 * self._batch_size)) as ahead:
            while True:
                yield from self._take_in(ahead)
                try:
                    if self._waiting and self._has_room():
                        yield from self._admit()
                    yield from self._step()
                except (MemoryError, RuntimeError) as error:  # what MLX raises when the device gives up
                    yield from self._give_up(error)
                if ahead.ended and not self._waiting and not self._rows:
                    return

    def _take_in(self, ahead: Prefetcher) -> Iterator[Event]:
        """Let speech in, as far as there is some and room for it; an idle model waits for it."""
        gathered_by = None  # set when the first speech is there
        while not ahead.ended and len(self._waiting) < 2 * self._batch_size:
            patience_s: float | None = 0.0
            if not self._rows:
                gathered_by = gathered_by or (time.perf_counter() + GATHER_S if self._waiting else None)
                patience_s = max(0.0, gathered_by - time.perf_counter()) if gathered_by else None
            arrival = ahead.take(patience_s)
            if arrival is None:
                return
            yield from self._enter(arrival)

    def _enter(self, arrival: Arrival) -> Iterator[Event]:
        if isinstance(arrival, Opened):
            self._books[arrival.source] = Book(arrival.source, arrival.name, arrival.started, arrival.start_s)
        elif (book := self._books.get(arrival.source)) is None:
            pass  # it has failed meanwhile
        elif isinstance(arrival, Read):
            yield arrival
        elif isinstance(arrival, Speech):
            book.expect(arrival.stretch)
            self._waiting.append(arrival)
        else:
            book.end = arrival
            yield from self._finish(book)

    def _has_room(self) -> bool:
        free = self._batch_size - len(self._rows)
        return not self._rows or free >= max(1, min(PREFILL_ROWS, self._batch_size // 4))

    def _admit(self) -> Iterator[Event]:
        """Encode some of those that wait, and let their rows join."""
        chosen = self._choose(min(PREFILL_ROWS, self._batch_size - len(self._rows)))
        recognizer, options = self._recognizer, self._options
        with self._shared("features", chosen):
            features = [recognizer.features(speech.stretch.samples) for speech in chosen]
        with self._shared("encoder", chosen):
            encoded = recognizer.encode(features)
        readings: list[CTCReading] | list[None] = [None] * len(chosen)
        if self._hears:
            with self._shared("ctc", chosen):
                readings = recognizer.read_ctc(encoded)
        rows = [self._row(speech, reading) for speech, reading in zip(chosen, readings, strict=True)]
        with self._shared("prefill", chosen):
            prompts = recognizer.prompts(encoded, options, [speech.first for speech in chosen])
            numbers = self._decoder.add(prompts, [row.draft for row in rows])
        self._rows.update(zip(numbers, rows, strict=True))
        yield from (PartialText(speech.source, speech.stretch.start_s, "") for speech in chosen)

    def _row(self, speech: Speech, reading: CTCReading | None) -> Row:
        """The first row of a recording goes on from an earlier text, if there is one."""
        earlier = self._options.prev_text if speech.first else None
        stream, draft = TextStream(self._recognizer.spell, earlier or ""), None
        if reading and self._drafts:
            draft = CTCDraft(reading.text, stream, self._recognizer.token_ids, self._memory)
        stops, exact = self._recognizer.config.stop_token_ids, self._options.exact_tokens
        stopping = StoppingCriteria(stops, speech.stretch.duration_s, self._options.max_tokens)
        return Row(speech, stream, stopping if exact is None else Quota(exact), reading, draft)

    def _choose(self, count: int) -> list[Speech]:
        """The one that has waited longest, and those that are most like it in length.

        What goes on from an earlier text is read apart from the others, whose prompts are shorter.
        """
        lengths = [len(speech.stretch.samples) for speech in self._waiting]
        going_on = [bool(self._options.prev_text and speech.first) for speech in self._waiting]
        alike = [index for index in range(len(lengths)) if going_on[index] == going_on[0]]
        order = sorted(alike, key=lambda index: (abs(lengths[index] - lengths[0]), index))
        taken = sorted(order[:count])
        return [self._waiting.pop(index) for index in reversed(taken)][::-1]

    def _step(self) -> Iterator[Event]:
        """One more token for every row, or several."""
        with self._shared("decode", [row.speech for row in self._rows.values()]):
            tokens = self._decoder.step()
        for number in {token.row for token in tokens}:
            self._books[self._rows[number].speech.source].counts["decoder_calls"] += 1
        for token in tokens:
            if token.row in self._rows:  # it may have ended before the last of its tokens
                yield from self._write(self._rows[token.row], token)

    def _write(self, row: Row, token: Token) -> Iterator[Event]:
        book = self._books[row.speech.source]
        book.counts.update(tokens=1, accepted=int(token.drafted))
        book.first_token = book.first_token or time.perf_counter()
        if token.finite:
            row.logprobs.append(token.logprob)
        settled = row.stream.settled
        reason = row.stopping.push(token, row.stream)
        if reason:
            self._decoder.end(token.row)
            del self._rows[token.row]
            yield PartialText(book.source, row.speech.stretch.start_s, None)
            yield from self._end(book, row, reason)
        elif row.stream.settled != settled:
            yield PartialText(book.source, row.speech.stretch.start_s, row.stream.settled)

    def _end(self, book: Book, row: Row, reason: StopReason) -> Iterator[Event]:
        """Settle a segment, or try again in two halves where that may help."""
        speech, attempt = row.speech, self._attempt(row, reason)
        if row.draft:
            book.counts["drafted"] += row.draft.proposed
        is_worth_it = (
            row.stopping.worth_retrying(reason, attempt.segment.doubtful) and speech.retries < MAX_RETRIES
        )
        if is_worth_it and (parts := speech.stretch.halves()):
            firsts = zip(parts, (speech.first, False), strict=True)
            self._waiting[:0] = [Speech(speech.source, part, first, speech.retries + 1) for part, first in firsts]
            book.replace(attempt, parts)
            return
        if row.draft and row.ctc and reason == StopReason.EOS and not attempt.segment.doubtful:
            self._memory.learn(row.ctc.text, attempt.segment.text)
        for settled in book.settle(attempt):
            yield SegmentFinished(book.source, settled)
        yield from self._finish(book)

    def _attempt(self, row: Row, reason: StopReason) -> Attempt:
        stretch = row.speech.stretch
        raw = without_loop(row.stream) if reason == StopReason.LOOP else row.stream.raw
        text = clean_text(raw)
        before = said_before(text, clean_text(row.stream.earlier), row.ctc.text) if row.ctc else ""
        opinion = compare(text.removeprefix(before), row.ctc.text) if row.ctc and self._compares else None
        words: tuple[Word, ...] = ()
        if self._options.word_times:
            assert row.ctc is not None  # else the recognizer has refused
            words = time_words(text, row.ctc, stretch.start_s, stretch.end_s, before)
        segment = Segment(
            start_s=stretch.start_s,
            end_s=stretch.end_s,
            text=text,
            thinking=thinking(raw),
            stop_reason=str(reason),
            retries=row.speech.retries,
            tokens=len(row.logprobs),
            mean_logprob=sum(row.logprobs) / len(row.logprobs) if row.logprobs else None,
            ctc_text=row.ctc.text if row.ctc and self._options.ctc else None,
            scores=row.stream.scores(text) if self._options.confidence else (),
            words=words,
            disagreement=opinion.disagreement if opinion else None,
            doubtful=bool(opinion and opinion.doubtful) and reason == StopReason.EOS,
        )
        return Attempt(stretch, segment, opinion)

    def _finish(self, book: Book) -> Iterator[Event]:
        """The last event of a recording, if it is done."""
        if not book.done:
            return
        del self._books[book.source]
        assert book.end is not None
        if book.end.error and not book.end.read_s:
            yield Failed(book.source, book.end.error)
        else:
            name, word_times = self._recognizer.loaded.name, self._options.word_times
            yield Finished(book.source, book.transcript(name, self._language, word_times))

    def _give_up(self, error: Exception) -> Iterator[Event]:
        """The computation failed: try again with half as much at once; a single row fails its recording."""
        lost = list(self._in_work)
        if self._stage in ("prefill", "decode"):  # the decoder may have stopped anywhere: its rows are lost
            known = set(map(id, lost))
            written = [row.speech for row in self._rows.values()]
            self._rows, self._decoder = {}, self._new_decoder()
            yield from (PartialText(speech.source, speech.stretch.start_s, None) for speech in written)
            lost += [speech for speech in written if id(speech) not in known]
        books = self._books
        lost = [one for one in lost if one.source in books and books[one.source].is_open(one.stretch)]
        if self._batch_size > 1:
            self._batch_size //= 2
            self._waiting[:0] = lost
            return
        failed = {speech.source for speech in lost}
        self._waiting = [speech for speech in self._waiting if speech.source not in failed]
        hint = "a smaller --max-segment needs less memory"
        for book in [self._books.pop(source) for source in sorted(failed)]:
            problem = f"{book.name}: the computation failed ({error})"
            yield Failed(book.source, FunASRError(problem, hint, code="computation-failed"))

    @contextmanager
    def _shared(self, stage: str, speeches: list[Speech]) -> Iterator[None]:
        """Share out the time of a block among the recordings that it works on."""
        self._stage, self._in_work = stage, speeches
        started = time.perf_counter()
        yield
        taken_s = time.perf_counter() - started
        for speech in speeches:
            if book := self._books.get(speech.source):
                book.seconds[stage] += taken_s / len(speeches)
