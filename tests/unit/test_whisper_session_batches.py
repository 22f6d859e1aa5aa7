"""Rows of Whisper that share a batch, and windows that segments share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.whisper_rows import CLIPS, assert_same, decode, request

from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.scheduler import of_session
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Segment


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [TranscribeOptions(max_tokens=6), TranscribeOptions(max_tokens=6, segment_times=True, translate=True),
     TranscribeOptions(max_tokens=6, temperature=0.8, seed=3, hotwords=("one", "two"))],
    ids=["plain", "times and translation", "sampled"],
)  # fmt: skip
def test_a_text_does_not_depend_on_its_batch(shared_whisper: WhisperModel, options: TranscribeOptions) -> None:
    together = decode(shared_whisper, options, *CLIPS)
    for samples, segment in zip(CLIPS, together, strict=True):
        assert_same(*decode(shared_whisper, options, samples), segment)


OWN = [
    {}, {"language": "de"}, {"language": "en", "translate": True}, {"translate": True, "segment_times": True},
    {"hotwords": ("Kasan", "Ufa")}, {"prev_text": "We met at ten."}, {"word_times": True, "confidence": True},
    {"max_tokens": 2}, {"exact_tokens": 9}, {"segment_times": True, "word_times": True},
]  # fmt: skip


@pytest.mark.slow
def test_rows_have_options_of_their_own(shared_whisper: WhisperModel) -> None:
    """Rows that join one session write what they write alone. They ignore the options of it and of other rows."""
    other = TranscribeOptions(language="fr", translate=True, segment_times=True, word_times=True, max_tokens=3)
    session, found, owners = shared_whisper.session(other), dict[int, Segment](), dict[int, int]()
    own = [TranscribeOptions(**({"max_tokens": 6} | each)) for each in OWN]
    for index, options in enumerate(own):
        joins = dataclasses.replace(request(CLIPS[index % 3]), options=options)
        [number] = session.add([joins])
        owners[number] = index
        for update in session.step():
            if update.hypothesis:
                found[owners[update.row]] = update.hypothesis.segment
    while len(found) < len(own):
        found |= {owners[each.row]: each.hypothesis.segment for each in session.step() if each.hypothesis}
    for index, options in enumerate(own):
        assert_same(*decode(shared_whisper, options, CLIPS[index % 3]), found[index])
    assert len({of_session(options, shared_whisper) for options in own}) == 1


@pytest.mark.slow
def test_rows_join_and_leave(shared_whisper: WhisperModel) -> None:
    """A row that joins later writes what it writes alone."""
    options = TranscribeOptions(max_tokens=6)
    session, found = shared_whisper.session(options), dict[int, Segment]()
    waiting = list(enumerate(CLIPS))
    owners: dict[int, int] = {}
    while waiting or len(found) < len(CLIPS):
        if waiting:
            index, samples = waiting.pop(0)
            [number] = session.add([request(samples)])
            owners[number] = index
        for _ in range(2):
            found |= {
                owners[update.row]: update.hypothesis.segment for update in session.step() if update.hypothesis
            }
    for index, samples in enumerate(CLIPS):
        [alone] = decode(shared_whisper, options, samples)
        assert found[index].text == alone.text


@pytest.mark.slow
@pytest.mark.parametrize("word_times", [False, True])
def test_joined_segments_have_time_tokens(
    whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch, word_times: bool
) -> None:
    """They share a batch with others, and each text is the one that it has alone."""
    timed: list[bool] = []
    prompt_ids = whisper.prompt_ids

    def spy(options: TranscribeOptions, *arguments: Any, **rest: Any) -> list[int]:
        timed.append(options.segment_times)
        return prompt_ids(options, *arguments, **rest)

    def texts(requests: list[SegmentRequest]) -> list[str]:
        session = whisper.session(TranscribeOptions(language="en", max_tokens=12, word_times=word_times))
        found = dict.fromkeys(session.add(requests), "")
        while len(session._rows):
            found |= {update.row: update.hypothesis.segment.text for update in session.step() if update.hypothesis}
        return list(found.values())

    joined = [False, True, True]
    requests = [
        dataclasses.replace(one, audio=dataclasses.replace(one.audio, joined=flag))
        for one, flag in zip(map(request, CLIPS), joined, strict=False)
    ]
    alone = [text for one in requests for text in texts([one])]
    monkeypatch.setattr(whisper, "prompt_ids", spy)
    assert texts(requests) == alone
    assert timed[1 : 1 + len(requests)] == joined[: len(requests)]  # after the session's own check of its options


def test_an_error_loses_all_rows_of_the_decoder(whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = whisper.session(TranscribeOptions())
    rows = session.add([request(CLIPS[0]), request(CLIPS[1])])
    session.drop(rows[0])
    with monkeypatch.context() as patched:
        patched.setattr(whisper, "features", lambda samples: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.add([request(CLIPS[0])])
    assert session.reset() == set()
    session.step()
    assert session.reset() == {rows[1]}
    assert session.step() == []


def test_the_number_of_rows_depends_on_memory(
    shared_whisper: WhisperModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "funasr_cli.families.rows.available_bytes"
    monkeypatch.setattr(module, lambda: 1 << 40)
    assert shared_whisper.session(TranscribeOptions()).max_rows == 16
    monkeypatch.setattr(module, lambda: 1 << 27)
    rows = shared_whisper.session(TranscribeOptions()).max_rows
    able = shared_whisper.capabilities
    monkeypatch.setattr(shared_whisper, "capabilities", dataclasses.replace(able, translation=False))
    assert 1 < rows < shared_whisper.session(TranscribeOptions()).max_rows < 16  # no row can have a second text
    monkeypatch.setattr(module, lambda: 0)
    assert shared_whisper.session(TranscribeOptions()).max_rows == 1


@pytest.mark.slow
def test_windows_are_filled(shared_whisper: WhisperModel) -> None:
    """Every second of a recording is in the ledger, and no segment is longer than a window."""
    assert (shared_whisper.window_s, shared_whisper.longest_segment_s) == (30.0, 30.0)
    samples = np.concatenate([CLIPS[2], CLIPS[2][: 16000 * 5]])
    options = TranscribeOptions(vad=False, max_tokens=3)
    transcript = Recognizer(shared_whisper).transcribe(samples, options, sample_rate_hz=16000)
    assert len(transcript.segments) == 2
    assert all(segment.duration_s <= 30 for segment in transcript.segments)
    ledger = transcript.ledger
    assert ledger.transcribed_s + ledger.repaired_s + ledger.failed_s + ledger.silence_s == pytest.approx(35)
