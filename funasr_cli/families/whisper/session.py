"""A run of Whisper: windows that are decoded together, with times, translation and checks of the text."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from funasr_cli.capabilities import BEST_EFFORT
from funasr_cli.compute.backend import mx
from funasr_cli.compute.memory import available_bytes
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.cross_attention import place_words
from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import Quota, StoppingCriteria, StopReason
from funasr_cli.decoding.text import TextStream, clean_text
from funasr_cli.families.whisper import tokens
from funasr_cli.languages import resolve_language
from funasr_cli.measure import timed
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest, Update
from funasr_cli.transcript import Segment, TimedText, Translation, Word

if TYPE_CHECKING:
    from funasr_cli.families.whisper.model import WhisperModel, Witness

ROWS_AT_ONCE = 4  # joining together: enough to use the processor fully, without delaying the other rows
MOST_ROWS = 16  # more rows gain little
# The prompt, and what is done with the text. All rows share the sampling and the longest segment.
ROW_OPTIONS: tuple[str, ...] = (
    "language", "hotwords", "prev_text", "translate", "word_times", "confidence", "max_tokens", "exact_tokens",
    *BEST_EFFORT,
)  # fmt: skip
ENGLISH = "en"  # the language of all translations
# Upstream's thresholds: of a text that repeats itself, and of a window without speech.
MOST_COMPRESSION, SILENT, UNLIKELY = 2.4, 0.6, -1.0
HAS_WORDS_S = 1.0  # speech of this duration should have words, so an empty text is doubtful


@dataclass
class Row:
    """A segment that is being decoded."""

    request: SegmentRequest
    options: TranscribeOptions
    encoded: mx.array  # (1,500, width)
    witness: "Witness"
    parts: dict[int, RowText]  # by row of the decoder: the transcript, then perhaps the translation

    @property
    def texts(self) -> list[RowText]:
        """The parts in order."""
        return list(self.parts.values())


class WhisperSession:
    """A batch of segments on the decoder, which join and leave it independently; see `Session`."""

    rows_at_once = ROWS_AT_ONCE

    def __init__(self, model: "WhisperModel", options: TranscribeOptions):
        self._model, self._options = model, options
        resolve_language(options.language, model.capabilities.languages)  # raises if the language is unknown
        model.text_before(options, first=True)  # raises if there are too many hotwords
        self.seconds: dict[str, float] = {}
        self._stage = ""  # the current computation
        self._rows: dict[int, Row] = {}
        self._owners: dict[int, int] = {}  # the row that each row of the decoder belongs to
        self._numbers = count()
        self._rules = {timed: model.rules(replace(options, segment_times=timed)) for timed in (False, True)}
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> BatchDecoder:
        return BatchDecoder(self._model.network.decoder, make_sampler(self._options))

    @property
    def max_rows(self) -> int:
        """Number of rows, at most `MOST_ROWS`, whose keys and values fit into half the free memory.

        Any row may be translated, if the model can do so, and then has two texts.
        """
        model, texts = self._model, 1 + self._model.capabilities.translation
        row_bytes = model.network.decoder.row_bytes(model.config.encoder.positions) * texts
        return max(1, min(MOST_ROWS, available_bytes() // 2 // row_bytes))

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        """Encode segments, find their languages, and prefill their prompts; return the row numbers."""
        model, options = self._model, requests[0].options or self._options
        decoder = model.network.decoder
        with self._timed("features"):
            features = np.stack([model.features(request.audio.samples) for request in requests])
        with self._timed("encoder"):
            encoded = model.network.encoder(mx.array(features))  # (rows, 1,500, width)
            mx.eval(encoded)
        with self._timed("prefill"):
            memory = decoder.memory(encoded)
            witnesses = model.listen(memory, options)
            languages = [witness.language for witness in witnesses]
            texts = [(index, tokens.TRANSCRIBE) for index in range(len(requests))]
            if options.translate:
                foreign = (index for index, language in enumerate(languages) if language != ENGLISH)
                texts += [(index, tokens.TRANSLATE) for index in foreign]
                owners = mx.array([index for index, _ in texts])
                memory = [(keys[owners], values[owners]) for keys, values in memory]
            # Without time tokens, the model skips some sentences after a pause in its window.
            timed = [
                replace(options, segment_times=options.segment_times or request.audio.joined)
                for request in requests
            ]
            prompts = [
                model.prompt_ids(timed[index], languages[index], first=requests[index].first, task=task)
                for index, task in texts
            ]
            embedded = [decoder.embed(mx.array(prompt)) for prompt in prompts]
            rules = [self._rules[timed[index].segment_times] for index, _ in texts]
            numbers = self._decoder.add(embedded, memory=memory, rules=rules)
        rows = [
            Row(request, options, hidden, witness, {})
            for request, hidden, witness in zip(requests, encoded, witnesses, strict=True)
        ]
        own = [next(self._numbers) for _ in rows]
        for number, prompt, (index, _) in zip(numbers, prompts, texts, strict=True):
            stopping = self._stopping(options, len(prompt))
            stream = TextStream(model.vocabulary.decode, has_marks=False)
            rows[index].parts[number] = RowText(stream, stopping, MOST_COMPRESSION)
            self._owners[number] = own[index]
        self._rows.update(zip(own, rows, strict=True))
        return own

    def _stopping(self, options: TranscribeOptions, prompt_tokens: int) -> StoppingCriteria:
        """Return when a text ends at the latest: the decoder has a limited number of positions."""
        vocabulary = self._model.vocabulary
        most = min(self._model.most_tokens, self._model.config.decoder.positions - prompt_tokens)
        if options.exact_tokens is not None:
            return Quota(min(options.exact_tokens, most))
        asked_for = None if options.max_tokens is None else min(options.max_tokens, most)
        return StoppingCriteria((vocabulary.end,), most, asked_for)

    def step(self) -> list[Update]:
        """Decode one token of every text that has not ended."""
        with self._timed("decode"):
            tokens = self._decoder.step()
        updates = [self._write(token) for token in tokens]
        for update in updates:  # only after all updates are made, since `reset` returns the rows that were lost
            if update.hypothesis:
                self.drop(update.row)
        return updates

    def _write(self, token: Token) -> Update:
        """Append a token to its text; finish the row if all its texts have ended."""
        number = self._owners[token.row]
        row = self._rows[number]
        part, transcript = row.parts[token.row], row.texts[0]
        counts = {"decoder_calls": 1, "tokens": 1}
        settled = transcript.stream.settled
        if part.push(token):
            self._decoder.end(token.row)
            if all(each.reason for each in row.texts):
                return Update(number, hypothesis=self._hypothesis(row), counts=counts)
        text = transcript.stream.settled
        return Update(number, None if text == settled else text, counts=counts)

    def _hypothesis(self, row: Row) -> Hypothesis:
        audio, options, model = row.request.audio, row.options, self._model
        part, *others = row.texts
        reasons = [each.reason or StopReason.EOS for each in row.texts]
        # A translation that did not end is as incomplete as a transcript.
        reason = next((each for each in reasons if each != StopReason.EOS), StopReason.EOS)
        mean, no_speech = part.mean_logprob, row.witness.no_speech
        is_silent = no_speech > SILENT and mean is not None and mean < UNLIKELY
        text = "" if is_silent else clean_text(part.raw, has_marks=False)
        translation = None
        if options.translate:
            english = others[0] if others else part  # English speech is copied
            translation = Translation(
                "" if is_silent else clean_text(english.raw, has_marks=False),
                ENGLISH,
                self._pieces(row, english) if options.segment_times and not is_silent else (),
                english.mean_logprob,
            )
        segment = Segment(
            start_s=audio.start_s,
            end_s=audio.end_s,
            text=text,
            thinking="",
            stop_reason=str(reason),
            retries=row.request.retries,
            tokens=sum(len(each.logprobs) for each in row.texts),
            mean_logprob=mean,
            scores=part.stream.scores(text) if options.confidence else (),
            words=self._words(row) if options.word_times and text else (),
            language=row.witness.language if model.detects(options) and not is_silent else None,
            no_speech_probability=no_speech,
            pieces=self._pieces(row, part) if options.segment_times and text else (),
            translation=translation,
            doubtful=not text and no_speech <= SILENT and audio.duration_s >= HAS_WORDS_S,
        )
        return Hypothesis(segment, retry_may_help=part.stopping.worth_retrying(reason))

    def _words(self, row: Row) -> tuple[Word, ...]:
        """Measure the times of the words of a transcript, from the tokens that its text keeps."""
        model, audio, part = self._model, row.request.audio, row.texts[0]
        pairs = [
            pair
            for pair in zip(part.stream.token_ids, part.logprobs, strict=False)
            if pair[0] < model.vocabulary.end
        ]
        raw = part.raw
        sources = model.vocabulary.spell([token_id for token_id, _ in pairs])[1][: len(raw)]
        del pairs[sources[-1][1] + 1 :]
        rows = model.rows_of(audio.samples)
        with self._timed("decode"):
            begins_s = model.token_times(row.encoded, row.witness.language, [pair[0] for pair in pairs], rows)
        scores = [math.exp(min(0.0, logprob)) for _, logprob in pairs]
        return place_words(raw, sources, begins_s, scores, audio.start_s, audio.end_s)

    def _pieces(self, row: Row, part: RowText) -> tuple[TimedText, ...]:
        """Divide a transcript or a translation at its time tokens; a character belongs to its first token."""
        vocabulary, audio, raw = self._model.vocabulary, row.request.audio, part.raw
        token_ids = part.stream.token_ids
        origins = [first for first, _ in vocabulary.spell(token_ids)[1]]  # of each character, ascending
        pieces, begun, begun_s = list[TimedText](), 0, audio.start_s
        for index, token_id in [*enumerate(token_ids), (len(token_ids), None)]:
            if token_id is not None and token_id < vocabulary.first_time:
                continue
            steps = None if token_id is None else token_id - vocabulary.first_time
            time_s = audio.end_s if steps is None else min(audio.start_s + steps * tokens.TIME_STEP_S, audio.end_s)
            end = bisect_left(origins, index)
            if text := clean_text(raw[begun:end], has_marks=False):
                pieces.append(TimedText(text, begun_s, time_s))
            begun, begun_s = end, time_s
        return tuple(pieces)

    def drop(self, row: int) -> None:
        """Remove a row."""
        if ended := self._rows.pop(row, None):
            for number in ended.parts:
                self._decoder.end(number)
                del self._owners[number]

    def reset(self) -> set[int]:
        """Recover from an error. If it happened in the decoder, all rows are lost."""
        if self._stage not in ("prefill", "decode"):
            return set()
        lost = set(self._rows)
        self._decoder.close()
        self._rows, self._owners, self._decoder = {}, {}, self._new_decoder()
        return lost

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to that of its stage, and remember the stage for `reset`."""
        self._stage = stage
        with timed(self.seconds, stage):
            yield
