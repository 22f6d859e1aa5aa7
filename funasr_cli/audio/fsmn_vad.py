"""FSMN-VAD: the speech probability of each 10 ms frame, in NumPy. `audio.fsmn_rules` decides by it.

Source: FunASR 1.4.16, ``funasr/models/fsmn_vad_streaming/encoder.py`` (``FSMN``), and the released model
``speech_fsmn_vad_zh-cn-16k-common``. The tests compare against them. The weights are those of its ``model.pt`` and
``am.mvn``, under its names, extracted by ``tools/extract_fsmn_vad.py``. By the Speech Lab of DAMO Academy, Alibaba
Group; Apache-2.0: see ``fsmn_vad.LICENSE``.

Each matrix product covers a single frame, as in `audio.vad`, so the result does not depend on how the audio is
divided into calls.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

from funasr_cli.features.cmvn import CMVN
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.features.streaming import StreamingFrontend

FRONTEND = FrontendConfig(16000, "hamming", 80, 25, 10, 5, 1)
FRAME_SAMPLES = 160  # 10 ms
CHUNK_SAMPLES = 10 * 16000  # processed at a time: a few megabytes of arrays
LAYERS = 4
TAPS = 20  # of the FSMN filter: the frame itself and those before it
PROJECTION = 128  # width of the FSMN filter
SILENCE = 0  # the network's output for silence

WEIGHTS_FILE = Path(__file__).with_name("fsmn_vad.safetensors")


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Load all tensors, float32, under the checkpoint's names without the prefix ``encoder.``."""
    return {name.removeprefix("encoder."): tensor for name, tensor in load_file(WEIGHTS_FILE).items()}


class FsmnVoiceActivityDetector:
    """Detector of speech in the 10 ms frames of one recording, with a state that is kept between calls."""

    def __init__(self) -> None:
        self._frontend = StreamingFrontend(FRONTEND)
        self._normalise = CMVN(_weights()["cmvn.shift"], _weights()["cmvn.scale"])
        self._past = [np.zeros((TAPS - 1, PROJECTION), np.float32) for _ in range(LAYERS)]

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Process the next samples of the recording. How it is divided into calls does not affect the result.

        Args:
            samples: (samples,) mono float32 in [-1, 1] at 16 kHz, any number of them.

        Returns:
            (frames,) float32 in [0, 1]. A frame's probability is known 45 ms after its first sample.
        """
        chunks = (samples[start : start + CHUNK_SAMPLES] for start in range(0, len(samples), CHUNK_SAMPLES))
        return np.concatenate([np.zeros(0, np.float32), *(self._run(self._frontend(chunk)) for chunk in chunks)])

    def finish(self) -> np.ndarray:
        """Return the probabilities of the last frames (frames,). Audio of less than 25 ms has none."""
        return self._run(self._frontend.finish())

    def _run(self, rows: np.ndarray) -> np.ndarray:
        """Run the network over feature rows: (frames, 400) -> (frames,)."""
        if len(rows) == 0:
            return np.zeros(0, np.float32)
        x = np.maximum(_linear("in_linear2", _linear("in_linear1", self._normalise(rows))), 0)  # (frames, 250)
        for layer in range(LAYERS):
            new = _product(f"fsmn.{layer}.linear", x)  # (frames, PROJECTION)
            with_past = np.concatenate([self._past[layer], new])
            self._past[layer] = with_past[len(new) :].copy()
            taps = _weights()[f"fsmn.{layer}.fsmn_block.conv_left.weight"][:, 0, :, 0]  # (PROJECTION, TAPS)
            filtered = new + np.einsum("tck,ck->tc", sliding_window_view(with_past, TAPS, axis=0), taps)
            x = np.maximum(_linear(f"fsmn.{layer}.affine", filtered), 0)  # (frames, 250)
        logits = _linear("out_linear2", _linear("out_linear1", x))  # (frames, 248)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return 1 - shares[:, SILENCE] / shares.sum(axis=1)


def _linear(name: str, x: np.ndarray) -> np.ndarray:
    return _product(name, x) + _weights()[f"{name}.linear.bias"]


def _product(name: str, x: np.ndarray) -> np.ndarray:
    """Multiply each frame by a layer's weights: (frames, in) -> (frames, out)."""
    return (x[:, None] @ _weights()[f"{name}.linear.weight"].T)[:, 0]
