"""Voice activity: how likely each 32 ms frame is speech. Silero VAD 6.2.3's network for 16 kHz, in NumPy.

Source: ``silero_vad_16k_op15.onnx`` of the PyPI package silero-vad 6.2.3 (https://github.com/snakers4/silero-vad),
and the ``OnnxWrapper`` that feeds it there; the oracle of the tests. The weights here are that graph's, under
its names (``tools/extract_vad.py`` took them out). MIT, Copyright (c) 2020-present Silero Team: see
``silero_vad.LICENSE``. The package's own ``silero_vad_16k.safetensors`` holds other weights.

Every matrix product is one frame's own and of one shape, so that BLAS rounds it alike wherever the sound is cut.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

SAMPLE_RATE_HZ = 16000  # the one rate that the network knows
FRAME_SAMPLES = 512  # 32 ms
CONTEXT_SAMPLES = 64  # the end of the frame before, in front of each frame
PADDING_SAMPLES = 64  # each frame's own end, mirrored behind it
WINDOW_SAMPLES = 256
HOP_SAMPLES = 128
ENCODER_STRIDES = (1, 2, 2, 1)
HIDDEN = 128
CHUNK_FRAMES = 256  # 8 s of sound at a time: a few megabytes of arrays

WEIGHTS_FILE = Path(__file__).with_name("silero_vad.safetensors")


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Every tensor of the network, float32, under the graph's names without their ``model.``."""
    return {name.removeprefix("model."): tensor for name, tensor in load_file(WEIGHTS_FILE).items()}


class VoiceActivityDetector:
    """Speech probability of each 32 ms frame of one recording; carries its state from block to block."""

    def __init__(self) -> None:
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._hidden = np.zeros(HIDDEN, np.float32)
        self._cell = np.zeros(HIDDEN, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Go on where the call before stopped; how a recording is cut into calls changes nothing.

        Args:
            samples: (samples,) mono float32 in [-1, 1] at `SAMPLE_RATE_HZ`, all finite; any multiple of
                `FRAME_SAMPLES`, also none.

        Returns:
            (frames,) float32 in [0, 1].

        Raises:
            ValueError: the samples are not one row of whole frames.
        """
        if samples.ndim != 1 or len(samples) % FRAME_SAMPLES:
            raise ValueError(f"samples of shape {samples.shape} are not one row of frames of {FRAME_SAMPLES}")
        step = CHUNK_FRAMES * FRAME_SAMPLES
        chunks = [self._chunk(samples[start : start + step]) for start in range(0, len(samples), step)]
        return np.concatenate([np.zeros(0, np.float32), *chunks])

    def _chunk(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) -> (frames,), for at most `CHUNK_FRAMES`."""
        wave = np.concatenate([self._context, samples.astype(np.float32)])
        self._context = wave[-CONTEXT_SAMPLES:].copy()
        frames = sliding_window_view(wave, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]  # (frames, 576)
        return self._decode(_encode(_spectra(frames)))

    def _decode(self, x: np.ndarray) -> np.ndarray:
        """The LSTM and what it says: (frames, 1, HIDDEN) -> (frames,)."""
        weights = _weights()
        bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
        inputs = x @ weights["decoder.rnn.weight_ih"].T + bias  # (frames, 1, 4 * HIDDEN)
        recurrent = weights["decoder.rnn.weight_hh"]  # (4 * HIDDEN, HIDDEN)
        states = np.empty_like(x)  # (frames, 1, HIDDEN)
        for index, row in enumerate(inputs[:, 0]):
            enter, keep, new, show = (row + recurrent @ self._hidden).reshape(4, HIDDEN)
            self._cell = _sigmoid(keep) * self._cell + _sigmoid(enter) * np.tanh(new)
            self._hidden = _sigmoid(show) * np.tanh(self._cell)
            states[index] = self._hidden
        logits = np.maximum(states, 0) @ weights["decoder.decoder.2.weight"][0] + weights["decoder.decoder.2.bias"]
        return _sigmoid(logits[:, 0, 0])


def _spectra(frames: np.ndarray) -> np.ndarray:
    """Magnitudes in four windows of each frame: (frames, 576) -> (frames, 4, 129)."""
    x = np.pad(frames, [(0, 0), (0, PADDING_SAMPLES)], mode="reflect")  # (frames, 640)
    windows = sliding_window_view(x, WINDOW_SAMPLES, axis=1)[:, ::HOP_SAMPLES]  # (frames, 4, WINDOW_SAMPLES)
    basis = _weights()["stft.forward_basis_buffer"][:, 0]  # (258, WINDOW_SAMPLES): Hann window times cos; -sin
    real, imaginary = np.split(np.ascontiguousarray(windows) @ basis.T, 2, axis=2)  # (frames, 4, 129) each
    return np.sqrt(real**2 + imaginary**2)


def _encode(x: np.ndarray) -> np.ndarray:
    """Four convolutions over a frame's four windows: (frames, 4, 129) -> (frames, 1, HIDDEN)."""
    for layer, stride in enumerate(ENCODER_STRIDES):
        weight = _weights()[f"encoder.{layer}.reparam_conv.weight"]  # (out, in, 3)
        bias = _weights()[f"encoder.{layer}.reparam_conv.bias"]  # (out,)
        padded = np.pad(x, [(0, 0), (1, 1), (0, 0)])
        taps = sliding_window_view(padded, 3, axis=1)[:, ::stride]  # (frames, windows, in, 3); windows: 4, 2, 1, 1
        columns = taps.reshape(*taps.shape[:2], -1)  # (frames, windows, in * 3)
        x = np.maximum(columns @ weight.reshape(len(weight), -1).T + bias, 0)  # (frames, windows, out)
    return x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # 1 / (1 + exp(-x)) without its overflow
