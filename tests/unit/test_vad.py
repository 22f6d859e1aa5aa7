"""The voice activity detector alone. parity/test_vad_onnx.py compares it with Silero's."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segmenting import noise

from funasr_cli.audio import vad
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import FRAME_SAMPLES, SAMPLE_RATE_HZ, VoiceActivityDetector

ZH_WAV = Path(__file__).parents[1] / "data" / "zh-6s.wav"


ZH = load_audio(ZH_WAV, SAMPLE_RATE_HZ).samples
ZH = ZH[: len(ZH) // FRAME_SAMPLES * FRAME_SAMPLES]
ZH_FRAMES = len(ZH) // FRAME_SAMPLES
ZH_SPEECH = VoiceActivityDetector()(ZH)


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, ZH_FRAMES), max_size=8), chunk_frames=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_blocks_change_nothing(cuts: list[int], chunk_frames: int) -> None:
    blocks = np.split(ZH, np.array(sorted(cuts), int) * FRAME_SAMPLES)
    detector = VoiceActivityDetector()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vad, "CHUNK_FRAMES", chunk_frames)
        in_blocks = np.concatenate([detector(block) for block in blocks])
    np.testing.assert_array_equal(in_blocks, ZH_SPEECH)


def test_frame_by_frame_from_one_buffer() -> None:
    detector, buffer = VoiceActivityDetector(), np.empty(FRAME_SAMPLES, np.float32)
    for frame, expected in zip(ZH.reshape(-1, FRAME_SAMPLES), ZH_SPEECH, strict=True):
        buffer[:] = frame
        assert detector(buffer) == expected


def test_recordings_are_independent() -> None:
    first, second = VoiceActivityDetector(), VoiceActivityDetector()
    first(noise(20 * FRAME_SAMPLES))
    np.testing.assert_array_equal(second(ZH), ZH_SPEECH)


def test_silence_after_speech() -> None:
    speech = VoiceActivityDetector()(np.concatenate([ZH, np.zeros(60 * FRAME_SAMPLES, np.float32)]))
    assert speech[ZH_FRAMES + 10 :].max() < 0.1  # 0.3 s later


def test_no_samples() -> None:
    detector = VoiceActivityDetector()
    nothing = detector(ZH[:0])
    assert nothing.shape == (0,)
    assert nothing.dtype == np.float32
    np.testing.assert_array_equal(detector(ZH), ZH_SPEECH)


@pytest.mark.parametrize("shape", [(1,), (FRAME_SAMPLES - 1,), (FRAME_SAMPLES + 1,), (1, FRAME_SAMPLES), ()])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    detector = VoiceActivityDetector()
    with pytest.raises(ValueError, match="a multiple of 512"):
        detector(np.zeros(shape, np.float32))
    np.testing.assert_array_equal(detector(ZH), ZH_SPEECH)  # and its state is unchanged


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    five_minutes = np.zeros(300 * SAMPLE_RATE_HZ, np.float32)
    tracemalloc.start()
    try:
        VoiceActivityDetector()(five_minutes)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20e6
