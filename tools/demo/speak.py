"""espeak-ng speech synthesis through its C interface (the library comes with `espeakng-loader`)."""

from __future__ import annotations

import ctypes
import itertools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import resample_poly

SAMPLE_RATE_HZ = 16_000
ACCENTS = {
    "en": ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc"),
    "zh": ("cmn",),
}
# espeak's voice variants that sound human; whispers, robots and monsters are omitted.
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
_NO_EVENT, _WORD_EVENT = 0, 1


class _Event(ctypes.Structure):
    """espeak_EVENT of `speak_lib.h`, since interface version 10."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, starting at 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),  # the same in samples
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)  # fmt: skip


@dataclass(frozen=True)
class Voice:
    """A voice; `rate` in words per minute, pitch and range on espeak's scales of 0 to 100."""

    name: str
    rate: int
    pitch: int
    range: int


def draw_voice(rng: random.Random, language: str, held_out: bool) -> Voice:
    """Draw a voice of the training part or the held-out part; `grandma` and `Andy` are never in both."""
    variants = HELD_OUT_VARIANTS if held_out else [v for v in VARIANTS if v not in HELD_OUT_VARIANTS]
    name = f"{rng.choice(ACCENTS[language])}+{rng.choice(variants)}"
    return Voice(name, rng.randint(*RATES_WPM), rng.randint(*PITCHES), rng.randint(30, 70))


@dataclass(frozen=True)
class Spoken:
    """A spoken sentence.

    Attributes:
        samples: (samples,) float32 at 16 kHz, peak about 0.3 to 1.
        word_starts_s: starts of the words as espeak-ng reports them: (position of the word's first character in
            the text, seconds). A Mandarin word is mostly one character, sometimes two that the dictionary
            joins (这个). A word with an initial stop starts at its closure.
    """

    samples: np.ndarray
    word_starts_s: list[tuple[int, float]]

    def later(self, samples: np.ndarray, delay_s: float) -> Spoken:
        """Return a copy with other samples, in which the words start `delay_s` later."""
        return Spoken(samples, [(position, start_s + delay_s) for position, start_s in self.word_starts_s])


class Speaker:
    """The synthesiser. Only one per process: the library keeps global state."""

    def __init__(self) -> None:
        import espeakng_loader  # imported here, so that code that only reads clips runs without the synthesiser

        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = espeakng_loader.get_data_path().encode()
        self._rate_hz = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, data_path, 0)
        if self._rate_hz <= 0:
            raise RuntimeError("espeak-ng did not start")
        self._chunks: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []  # (position in the text, sample)
        self._callback = _CALLBACK(self._receive)  # keeps a reference: the library holds only a pointer
        self._lib.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def say(self, text: str, voice: Voice) -> Spoken:
        """Speak a text; trim the silence that espeak adds around the speech."""
        if voice.name != self._voice:
            if self._lib.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise ValueError(f"espeak-ng has no voice {voice.name}")
            self._voice = voice.name
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._words = [], []
        data = text.encode() + b"\0"
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        samples = np.concatenate([np.zeros(1, np.float32), *self._chunks])
        up, down = SAMPLE_RATE_HZ // 50, self._rate_hz // 50
        samples = resample_poly(samples, up, down).astype(np.float32)
        start, end = _loud(samples)
        starts_s = [
            (position, max(0.0, (sample + 1) / self._rate_hz - start / SAMPLE_RATE_HZ))
            for position, sample in self._words
        ]
        return Spoken(samples[start:end], starts_s)

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            samples = np.ctypeslib.as_array(wave, shape=(count,))
            self._chunks.append(samples.astype(np.float32) / 32768)
        for index in itertools.count():
            event = events[index]
            if event.type == _WORD_EVENT:
                self._words.append((event.text_position - 1, event.sample))
            elif event.type == _NO_EVENT:
                return 0
        raise AssertionError("a list of events has an end")


def _loud(samples: np.ndarray) -> tuple[int, int]:
    """Return the first sample of the speech and the end of the speech."""
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 160)
