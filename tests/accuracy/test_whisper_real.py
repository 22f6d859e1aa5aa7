"""Whisper base with OpenAI's weights, compared with what openai-whisper 20250625 writes for two clips.

The weights are in the cache that `make real-data` fills; without them, the tests are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.real_data import JFK, real_part

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.families.load import load_checkpoint
from funasr_cli.families.open import open_checkpoint
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import Segment
from tools.real_data.cache import WHISPER

pytestmark = pytest.mark.slow

# Tokens of whisper.decode, greedy, in float32, with and without times, and words of whisper.timing.find_alignment.
TOKENS = {
    "en": [400, 370, 452, 7177, 6280, 11, 1029, 406, 437, 428, 1941, 393, 360, 337, 291, 11, 1029, 437, 291, 393,
           360, 337, 428, 1941, 13],
    "zh": [25246, 22064, 40528, 5676, 108, 20078, 20682, 9937, 118, 2412, 38242],
}  # fmt: skip
LAST_TIME = {"en": 50914, "zh": 50664}  # both begin with 50364
LOGPROBS = {"en": (-0.0956, -0.2969), "zh": (-0.2486, -0.5224)}  # mean, without and with times
NO_SPEECH = {"en": 0.0444, "zh": 0.2437}
TRANSLATION = "I want to ask, I am in the military center of the military center."
STARTS_S = [0.0, 0.52, 0.82, 1.18, 1.56, 3.18, 3.74, 4.24, 5.52, 5.76, 6.26, 6.62, 6.82, 7.06, 7.74, 8.48, 8.76,
            9.02, 9.32, 9.56, 9.78, 9.94]  # fmt: skip
ENDS_S = [*STARTS_S[1:5], 2.1, *STARTS_S[6:14], 7.34, *STARTS_S[15:], 10.36]


ENGINES = ["mlx", *(["native"] if LIBRARY else [])]


def load(layout: str, engine: str, dtype: str = "float32") -> Any:
    folder = real_part(f"{WHISPER}-{layout}")
    return load_checkpoint(open_checkpoint(folder, folder.name), folder, dtype, engine)


@pytest.fixture(scope="module", params=ENGINES)
def model(request: pytest.FixtureRequest) -> Any:
    """The model in Transformers' layout."""
    return load("hf", request.param)


def decode(model: Any, options: TranscribeOptions, *clips: np.ndarray) -> tuple[list[Segment], list[list[int]]]:
    """Decode clips as one batch; return their segments and tokens."""
    session = model.session(options)
    requests = [SegmentRequest(0, AudioSegment(0, clip, np.ones(len(clip) // 512)), first=True) for clip in clips]
    numbers = session.add(requests)
    parts = [session._rows[number].texts[0] for number in numbers]
    found: dict[int, Segment] = {}
    while len(found) < len(clips):
        found |= {update.row: update.hypothesis.segment for update in session.step() if update.hypothesis}
    return [found[number] for number in numbers], [part.stream.token_ids for part in parts]


@pytest.fixture(scope="module")
def clips(en_flac: Path, zh_wav: Path) -> dict[str, np.ndarray]:
    return {"en": load_audio(en_flac, 16000).samples, "zh": load_audio(zh_wav, 16000).samples}


@pytest.mark.parametrize("layout", ["openai", "mlx"])
def test_other_layouts_write_what_openai_whisper_writes(layout: str, clips: dict[str, np.ndarray]) -> None:
    [segment], [token_ids] = decode(load(layout, ENGINES[-1]), TranscribeOptions(word_times=True), clips["en"])
    assert_is_kennedy(segment, token_ids)


def test_words(model: Any, clips: dict[str, np.ndarray]) -> None:
    [segment], [token_ids] = decode(model, TranscribeOptions(word_times=True), clips["en"])
    assert_is_kennedy(segment, token_ids)


def assert_is_kennedy(segment: Segment, token_ids: list[int]) -> None:
    assert (segment.text, segment.language) == (JFK, "en")
    assert token_ids == TOKENS["en"]
    assert [word.start_s for word in segment.words] == pytest.approx(STARTS_S, abs=0.021)
    assert [word.end_s for word in segment.words] == pytest.approx(ENDS_S, abs=0.021)


@pytest.mark.parametrize("times", [False, True])
def test_a_batch_of_two_languages(model: Any, clips: dict[str, np.ndarray], times: bool) -> None:
    segments, token_ids = decode(model, TranscribeOptions(segment_times=times), *clips.values())
    for language, segment, ids in zip(clips, segments, token_ids, strict=True):
        assert segment.language == language
        assert segment.mean_logprob == pytest.approx(LOGPROBS[language][times], abs=1e-3)
        assert segment.no_speech_probability == pytest.approx(NO_SPEECH[language], abs=1e-3)
        assert ids == ([50364, *TOKENS[language], LAST_TIME[language]] if times else TOKENS[language])


def test_a_translation(model: Any, clips: dict[str, np.ndarray]) -> None:
    [segment], _ = decode(model, TranscribeOptions(translate=True), clips["zh"])
    assert segment.text == "我想问我在冰海星区有房"
    assert segment.translation.text == TRANSLATION


def test_silence_hum_and_noise_have_no_text(model: Any) -> None:
    """Voice activity detection comes first."""
    from funasr_cli.pipeline import Recognizer

    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(5 * 16000) / 16000)
    noise = np.random.default_rng(0).normal(0, 0.05, 5 * 16000)
    for samples in (np.zeros(5 * 16000), hum, noise):
        assert Recognizer(model).transcribe(samples.astype(np.float32), sample_rate_hz=16000).text == ""


@pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
def test_int8(clips: dict[str, np.ndarray]) -> None:
    exact, rounded = load("hf", "native"), load("hf", "native", "int8")
    options = TranscribeOptions()
    for samples in clips.values():
        one, other = (model.trace(samples, options).stages["encoder"] for model in (exact, rounded))
        assert np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other) > 0.9999
    [segment, _], [token_ids, _] = decode(rounded, TranscribeOptions(word_times=True), *clips.values())
    assert token_ids == TOKENS["en"]
    assert segment.language == "en"
    assert segment.mean_logprob == pytest.approx(LOGPROBS["en"][False], abs=0.02)
    assert [word.start_s for word in segment.words] == pytest.approx(STARTS_S, abs=0.041)
