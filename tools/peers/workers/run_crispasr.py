"""Run CrispASR. Arguments: FOLDER with its checkpoints; TYPE of one of them (Q8_0, Q4_K).

The package's `Session` does not say how many tokens it wrote, so this script calls the functions of CrispASR's
`funasr.h` that it calls. They report the tokens, but not the time of the first one.
"""

from __future__ import annotations

import ctypes
import os
import sys
import wave
from pathlib import Path

from serving import claim_stdout, serve

ANSWERS = claim_stdout()

import crispasr
import numpy as np

THREADS = int(os.environ["OMP_NUM_THREADS"])


class Parameters(ctypes.Structure):
    """`funasr_context_params`."""

    _fields_ = (
        ("n_threads", ctypes.c_int),
        ("verbosity", ctypes.c_int),
        ("use_gpu", ctypes.c_bool),
        ("temperature", ctypes.c_float),
    )


class Result(ctypes.Structure):
    """`funasr_result`."""

    _fields_ = (
        ("text", ctypes.c_char_p),
        ("token_ids", ctypes.POINTER(ctypes.c_int32)),
        ("token_probs", ctypes.POINTER(ctypes.c_float)),
        ("n_tokens", ctypes.c_int),
    )


class CrispASR:
    """`funasr_transcribe_with_probs`, one clip after the other."""

    def __init__(self, folder: str, kind: str) -> None:
        self.library = ctypes.CDLL(str(Path(crispasr.__file__).with_name("libcrispasr.so")))
        self.library.funasr_init_from_file.argtypes = [ctypes.c_char_p, Parameters]
        self.library.funasr_init_from_file.restype = ctypes.c_void_p
        self.library.funasr_set_language.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self.library.funasr_set_max_new_tokens.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.library.funasr_transcribe_with_probs.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self.library.funasr_transcribe_with_probs.restype = ctypes.POINTER(Result)
        self.library.funasr_result_free.argtypes = [ctypes.POINTER(Result)]
        path = os.fsencode(Path(folder) / f"{kind}.gguf")
        self.model = self.library.funasr_init_from_file(path, Parameters(THREADS, 0, False, 0.0))
        if not self.model:
            raise ValueError(f"CrispASR does not read {path!r}")
        self.library.funasr_set_language(self.model, "中文".encode())

    def transcribe(self, clips: list[str], tokens: int) -> tuple[None, list[int], list[str]]:
        """Transcribe, stopping at a number of tokens; see `serving.Engine`."""
        self.library.funasr_set_max_new_tokens(self.model, tokens)
        counts, texts = [], []
        for clip in clips:
            with wave.open(clip) as file:
                pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            samples = pcm.astype(np.float32) / 32768
            result = self.library.funasr_transcribe_with_probs(self.model, samples.ctypes.data, len(samples))
            if not result:
                raise ValueError(f"CrispASR failed on {clip}")
            counts.append(result.contents.n_tokens)
            texts.append(result.contents.text.decode(errors="replace"))
            self.library.funasr_result_free(result)
        return None, counts, texts


serve(CrispASR(*sys.argv[1:3]), ANSWERS, ("crispasr",))
