"""Voice activity detection: the speech probability of each 32 ms frame, by Silero VAD 6.2.3 for 16 kHz in NumPy.

Source: ``silero_vad_16k_op15.onnx`` of the PyPI package silero-vad 6.2.3 (https://github.com/snakers4/silero-vad)
and its ``OnnxWrapper``. The tests compare against them. The weights are those of that graph, under its names,
extracted by ``tools/extract_vad.py``. The package's ``silero_vad_16k.safetensors`` holds other weights. MIT,
Copyright (c) 2020-present Silero Team: see ``silero_vad.LICENSE``.

Each matrix product covers a single frame and always has the same shape. So BLAS always rounds it alike, and the
result does not depend on how the audio is divided into calls.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

SAMPLE_RATE_HZ = 16000  # the only rate that the network supports
FRAME_SAMPLES = 512  # 32 ms
CONTEXT_SAMPLES = 64  # the end of the previous frame, put before each frame
PADDING_SAMPLES = 64  # the end of each frame, mirrored and put after it
WINDOW_SAMPLES = 256
HOP_SAMPLES = 128
ENCODER_STRIDES = (1, 2, 2, 1)
HIDDEN = 128
CHUNK_FRAMES = 256  # 8 s of audio at a time: a few megabytes of arrays

WEIGHTS_FILE = Path(__file__).with_name("silero_vad.safetensors")


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Load all tensors of the network, float32, under the graph's names without the prefix ``model.``."""
    return {name.removeprefix("model."): tensor for name, tensor in load_file(WEIGHTS_FILE).items()}


class VoiceActivityDetector:
    """Detector of speech in the 32 ms frames of one recording, with a state that is kept between calls."""

    def __init__(self) -> None:
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._hidden = np.zeros(HIDDEN, np.float32)
        self._cell = np.zeros(HIDDEN, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Process the next samples of the recording. How it is divided into calls does not affect the result.

        Args:
            samples: (samples,) mono float32 in [-1, 1] at `SAMPLE_RATE_HZ`, all finite. The length is a multiple
                of `FRAME_SAMPLES` and may be 0.

        Returns:
            (frames,) float32 in [0, 1].

        Raises:
            ValueError: the samples are not one-dimensional, or not whole frames.
        """
        if samples.ndim != 1 or len(samples) % FRAME_SAMPLES:
            raise ValueError(f"samples of shape {samples.shape}, not (n,) with n a multiple of {FRAME_SAMPLES}")
        step = CHUNK_FRAMES * FRAME_SAMPLES
        chunks = [self._chunk(samples[start : start + step]) for start in range(0, len(samples), step)]
        return np.concatenate([np.zeros(0, np.float32), *chunks])

    def _chunk(self, samples: np.ndarray) -> np.ndarray:
        """Run the network over at most `CHUNK_FRAMES` frames: (samples,) -> (frames,)."""
        wave = np.concatenate([self._context, samples.astype(np.float32)])
        self._context = wave[-CONTEXT_SAMPLES:].copy()
        frames = sliding_window_view(wave, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]  # (frames, 576)
        return self._decode(_encode(_spectra(frames)))

    def _decode(self, x: np.ndarray) -> np.ndarray:
        """Run the LSTM and the output layer: (frames, 1, HIDDEN) -> (frames,) probabilities."""
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
    """Compute magnitude spectra of the four windows of each frame: (frames, 576) -> (frames, 4, 129)."""
    x = np.pad(frames, [(0, 0), (0, PADDING_SAMPLES)], mode="reflect")  # (frames, 640)
    windows = sliding_window_view(x, WINDOW_SAMPLES, axis=1)[:, ::HOP_SAMPLES]  # (frames, 4, WINDOW_SAMPLES)
    basis = _weights()["stft.forward_basis_buffer"][:, 0]  # (258, WINDOW_SAMPLES): Hann window times cos; -sin
    real, imaginary = np.split(np.ascontiguousarray(windows) @ basis.T, 2, axis=2)  # (frames, 4, 129) each
    return np.sqrt(real**2 + imaginary**2)


def _encode(x: np.ndarray) -> np.ndarray:
    """Run the four convolutions over the windows of each frame: (frames, 4, 129) -> (frames, 1, HIDDEN)."""
    for layer, stride in enumerate(ENCODER_STRIDES):
        weight = _weights()[f"encoder.{layer}.reparam_conv.weight"]  # (out, in, 3)
        bias = _weights()[f"encoder.{layer}.reparam_conv.bias"]  # (out,)
        padded = np.pad(x, [(0, 0), (1, 1), (0, 0)])
        taps = sliding_window_view(padded, 3, axis=1)[:, ::stride]  # (frames, windows, in, 3); windows: 4, 2, 1, 1
        columns = taps.reshape(*taps.shape[:2], -1)  # (frames, windows, in * 3)
        x = np.maximum(columns @ weight.reshape(len(weight), -1).T + bias, 0)  # (frames, windows, out)
    return x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # 1 / (1 + exp(-x)) without overflow
