"""Word times of the demo model: on clips with word starts from the synthesiser, joined clips and real speech."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT

import funasr_cli
from funasr_cli.demo import CLIPS
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Word
from tools.accuracy.decoding import read_clips
from tools.accuracy.joined import join_clips
from tools.accuracy.word_times import Errors, check, of_clips, of_joined

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data"
MEDIAN_S, MOST_S = 0.06, 0.18  # targets for a thousand clips, also met by each of these small sets


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return funasr_cli.load("demo", "float32", engine="mlx")


def require(errors: dict[str, Errors], words: int) -> None:
    for own in errors.values():
        late_s = np.abs(own.measured)
        assert len(late_s) >= words
        assert np.median(late_s) <= MEDIAN_S
        assert np.quantile(late_s, 0.95) <= MOST_S
        assert own.unmatched <= 0.1 * len(late_s)


def test_bundled_clips(recognizer: Recognizer) -> None:
    """The model reads these without an error, so all words are compared, in both languages together."""
    errors = of_clips(recognizer, read_clips(CLIPS), itn=False)
    late_s = [time_s for own in errors.values() for time_s in own.measured]
    require({"both": Errors(late_s)}, words=60)
    assert [own.unmatched for own in errors.values()] == [0, 0]


@pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_native_engine(recognizer: Recognizer, dtype: str) -> None:
    """The CTC branch, which times the words, is the same: so are the words of equal texts."""
    native = funasr_cli.load("demo", dtype, engine="native")
    for clip in read_clips(CLIPS):
        ours, theirs = (each.transcribe(clip.path, word_times=True, itn=False) for each in (native, recognizer))
        assert ours.text == theirs.text
        words, expected = (
            [(word.text, word.start_s, word.end_s) for segment in each.segments for word in segment.words]
            for each in (ours, theirs)
        )
        assert len(words) > 0
        assert words == expected


@pytest.mark.parametrize("condition", ["clean", "noisy"])
def test_held_out_clips(recognizer: Recognizer, condition: str) -> None:
    require(of_clips(recognizer, read_clips(DATA / "demo" / condition), itn=False), words=40)


def test_numbers_as_digits_are_estimated(recognizer: Recognizer) -> None:
    errors = of_clips(recognizer, read_clips(DATA / "demo/clean"), itn=True)
    for own in errors.values():
        assert len(own.estimated) >= 8
        assert np.median(np.abs(own.estimated)) <= MEDIAN_S
        assert np.quantile(np.abs(own.measured), 0.95) <= MOST_S


@pytest.mark.parametrize("snr_db", [None, 10.0])
def test_joined_clips(recognizer: Recognizer, tmp_path: Path, snr_db: float | None) -> None:
    recording = join_clips(read_clips(DATA / "demo/clean"), tmp_path / "joined.flac", None, snr_db)
    require(of_joined(recognizer, recording, itn=False), words=80)


def test_late_words_are_noticed() -> None:
    """The comparison itself detects times that are a second late, and a missing word."""
    clip = next(clip for clip in read_clips(CLIPS) if clip.language == "en")
    words = [
        Word(text, start_s + 1.0, start_s + 1.1, 1.0)
        for text, (_, start_s) in zip(clip.spoken.split(), clip.word_starts_s, strict=True)
    ]
    errors = Errors()
    errors.add(clip, words[:-1])
    assert errors.measured == pytest.approx([1.0] * (len(words) - 1))
    assert errors.unmatched == 1


@pytest.mark.parametrize("itn", [False, True])
@pytest.mark.parametrize("name", ["zh-6s.wav", "en-11s-jfk.flac"])
def test_people(recognizer: Recognizer, name: str, itn: bool) -> None:
    """The model does not understand these speakers, but its text has times anyway."""
    transcript = recognizer.transcribe(DATA / name, word_times=True, itn=itn)
    assert transcript.segments
    for segment in transcript.segments:
        check(segment)
    bare = recognizer.transcribe(DATA / name, itn=itn)
    assert transcript.text == bare.text
    assert all(segment.words == () and segment.ctc_text is None for segment in bare.segments)


def test_words_are_those_of_the_segment_wherever_it_is(recognizer: Recognizer, tmp_path: Path) -> None:
    """The same words, shifted, whether decoded in a batch or alone."""
    recording = join_clips(read_clips(CLIPS), tmp_path / "joined.flac")
    batched, alone = (
        recognizer.transcribe(recording.path, word_times=True, itn=False, batch_size=rows).segments
        for rows in (8, 1)
    )
    for one, other in zip(batched, alone, strict=True):
        assert [dataclasses.replace(word, score=None) for word in one.words] == [
            dataclasses.replace(word, score=None) for word in other.words
        ]
        assert [word.score for word in one.words] == pytest.approx([word.score for word in other.words], abs=1e-3)
