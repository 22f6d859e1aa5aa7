"""espeak-ng as a speech synthesiser, through its C interface (the library comes with `espeakng-loader`)."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass
from typing import Any

import espeakng_loader
import numpy as np
from scipy.signal import resample_poly

SAMPLE_RATE_HZ = 16_000
ACCENTS = {
    "en": ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc"),
    "zh": ("cmn",),
}
# espeak's voice variants that sound like people; whispers, robots and monsters are left out.
VARIANTS = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen "
    "Reed adam anika antonio aunty belinda benjamin boris caleb david ed edward edward2 f1 f2 f3 f4 f5 grandma "
    "grandpa gustave ian iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 linda m1 m2 m3 m4 m5 m6 m7 m8 "
    "marcelo max michel miguel mike2 norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 "
    "travis victor zac"
).split()
HELD_OUT_VARIANTS = (
    "Andrea",
    "Hugo",
    "Michael",
    "adam",
    "edward2",
    "f2",
    "f4",
    "iven3",
    "linda",
    "m3",
    "m7",
    "steph2",
)
RATES_WPM = (120, 215)
PITCHES = (25, 75)  # espeak's scale, 0 to 100
_SYNCHRONOUS, _UTF8, _RATE, _PITCH, _RANGE = 2, 1, 1, 3, 4
_EVENT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """One way to speak; `rate` in words a minute, pitch and range on espeak's scales of 0 to 100."""

    name: str
    rate: int
    pitch: int
    range: int


def draw_voice(rng: random.Random, language: str, held_out: bool) -> Voice:
    """A voice of the training or of the held-out part; `grandma` and `Andy` are never in both."""
    variants = HELD_OUT_VARIANTS if held_out else [v for v in VARIANTS if v not in HELD_OUT_VARIANTS]
    name = f"{rng.choice(ACCENTS[language])}+{rng.choice(variants)}"
    return Voice(name, rng.randint(*RATES_WPM), rng.randint(*PITCHES), rng.randint(30, 70))


class Speaker:
    """The synthesiser. One for each process: the library keeps global state."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = espeakng_loader.get_data_path().encode()
        self._rate_hz = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, data_path, 0)
        if self._rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start")
        self._chunks: list[np.ndarray] = []
        self._callback = _EVENT_CALLBACK(self._receive)  # kept: the library holds only a pointer
        self._lib.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def say(self, text: str, voice: Voice) -> np.ndarray:
        """(samples,) float32 at 16 kHz, peak about 0.3 to 1."""
        if voice.name != self._voice:
            if self._lib.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise ValueError(f"espeak-ng has no voice {voice.name}")
            self._voice = voice.name
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._chunks = []
        data = text.encode() + b"\0"
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        samples = np.concatenate([np.zeros(1, np.float32), *self._chunks])
        up, down = SAMPLE_RATE_HZ // 50, self._rate_hz // 50
        return _trim(resample_poly(samples, up, down).astype(np.float32))

    def _receive(self, wave: Any, count: int, _events: int) -> int:
        if wave and count > 0:
            samples = np.ctypeslib.as_array(wave, shape=(count,))
            self._chunks.append(samples.astype(np.float32) / 32768)
        return 0


def _trim(samples: np.ndarray) -> np.ndarray:
    """Cut the silence espeak puts around the speech."""
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:160]
