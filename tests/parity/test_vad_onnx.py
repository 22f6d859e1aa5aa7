"""The voice activity detector compared with the official graph in onnxruntime, run as Silero runs it.

Silero's ``OnnxWrapper`` gives the order of calls. The graph comes from the package silero-vad, which is installed
without its dependencies and never imported.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from funasr_cli.audio import vad
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import CONTEXT_SAMPLES, FRAME_SAMPLES, HIDDEN, SAMPLE_RATE_HZ, VoiceActivityDetector

TOLERANCE = 2e-5  # measured: 4e-6
SHOWS = 1e-3
SIGNALS = ("zh", "en", "zh at 0 dB", "en at 0 dB", "noise", "quiet noise", "silence", "square")
Mutation = Callable[[pytest.MonkeyPatch], None]


def wheel_data() -> Path:
    """The folder of the wheel's models."""
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None, "not installed: make install"
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    path = str(wheel_data() / "silero_vad_16k_op15.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def signals(zh_wav: Path, en_flac: Path) -> dict[str, np.ndarray]:
    """Signals by name: (samples,), in whole frames."""
    zh, en = (load_audio(path, SAMPLE_RATE_HZ).samples for path in (zh_wav, en_flac))
    noise = np.random.default_rng(0).standard_normal(len(en)).astype(np.float32)

    def at_0_db(speech: np.ndarray) -> np.ndarray:
        return speech + noise[: len(speech)] * np.sqrt(np.mean(speech**2))

    square = np.sign(np.sin(np.arange(3 * SAMPLE_RATE_HZ) / 6)).astype(np.float32)
    made = (zh, en, at_0_db(zh), at_0_db(en), 0.1 * noise, 1e-4 * noise, np.zeros_like(en), square)
    return {
        name: samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]
        for name, samples in zip(SIGNALS, made, strict=True)
    }


def official(session: onnxruntime.InferenceSession, samples: np.ndarray) -> np.ndarray:
    """Run the official graph frame by frame, with its state and context: (samples,) -> (frames,)."""
    state, context = np.zeros((2, 1, HIDDEN), np.float32), np.zeros((1, CONTEXT_SAMPLES), np.float32)
    speech = []
    for frame in samples.reshape(-1, 1, FRAME_SAMPLES):
        x = np.concatenate([context, frame], axis=1)  # (1, 576)
        output, state = session.run(None, {"input": x, "state": state, "sr": np.array(SAMPLE_RATE_HZ)})
        context = x[:, -CONTEXT_SAMPLES:]
        speech.append(output.item())
    return np.array(speech)


def difference(session: onnxruntime.InferenceSession, samples: np.ndarray) -> float:
    """Return the largest difference between the official graph and ours, over all frames."""
    return float(np.abs(VoiceActivityDetector()(samples) - official(session, samples)).max())


@pytest.mark.parametrize("name", SIGNALS)
def test_same_as_official(
    session: onnxruntime.InferenceSession, signals: dict[str, np.ndarray], name: str
) -> None:
    assert difference(session, signals[name]) <= TOLERANCE


def with_weights(change: Callable[[str, np.ndarray], np.ndarray]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        changed = {name: change(name, tensor) for name, tensor in vad._weights().items()}
        patch.setattr(vad, "_weights", lambda: changed)

    return mutate


def gates_in_onnx_order(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor.reshape(4, HIDDEN, -1)[[0, 3, 1, 2]].reshape(tensor.shape) if ".rnn." in name else tensor


def padding_of_zeros(patch: pytest.MonkeyPatch) -> None:
    pad = np.pad
    patch.setattr(np, "pad", lambda x, width, mode="constant": pad(x, width))


def forgetting(*names: str) -> Mutation:
    """Return a mutation that loses state between frames."""
    chunk = VoiceActivityDetector._chunk

    def forget(self: VoiceActivityDetector, samples: np.ndarray) -> np.ndarray:
        for name in names:
            setattr(self, name, np.zeros_like(getattr(self, name)))
        return chunk(self, samples)

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(vad, "CHUNK_FRAMES", 1)
        patch.setattr(VoiceActivityDetector, "_chunk", forget)

    return mutate


MUTATIONS: dict[str, Mutation] = {
    "gates in ONNX's order": with_weights(gates_in_onnx_order),
    "padding of zeros": padding_of_zeros,
    "no context": forgetting("_context"),
    "no state": forgetting("_hidden", "_cell"),
    "strides moved up": lambda patch: patch.setattr(vad, "ENCODER_STRIDES", (2, 2, 1, 1)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_shows(
    mutation: str,
    session: onnxruntime.InferenceSession,
    signals: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    MUTATIONS[mutation](monkeypatch)
    assert difference(session, signals["zh"]) > SHOWS
