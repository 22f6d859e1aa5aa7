"""Write a checkpoint for CrispASR. Arguments: CONVERTER, FOLDER in FunASR's layout, OUT, TYPE (Q8_0, Q4_K).

CrispASR's converter writes float16. Its quantizer is not in its package, so this script does the same while the
converter runs: it rounds the same matrices, with the function of ggml that the quantizer calls.

CrispASR stops when one token repeats 20 times, which random weights soon do. Its output matrix is separate from
the embeddings, so its rows are moved on by one here: a token then leads to another one, at the same cost.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

import crispasr
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType


def load_converter(path: str) -> Any:
    """Import CrispASR's converter, whose file name is not a module's."""
    spec = importlib.util.spec_from_file_location("converter", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quantizer:
    """Replaces the converter's `add_tensor`: matrices whose rows fill whole blocks are quantized."""

    def __init__(self, plain: Any, kind: GGMLQuantizationType) -> None:
        self.plain, self.kind = plain, kind
        ggml = ctypes.CDLL(str(Path(crispasr.__file__).with_name("libggml-base.so")))
        self.chunk = ggml.ggml_quantize_chunk
        self.chunk.restype = ctypes.c_size_t
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self.chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]

    def __call__(self, writer: Any, name: str, tensor: np.ndarray, *, force_f32: bool = False) -> str:
        """Add a tensor, and return its type, as the converter's function does."""
        block, block_bytes = GGML_QUANT_SIZES[self.kind]
        if force_f32 or tensor.ndim != 2 or tensor.shape[1] % block:
            return self.plain(writer, name, tensor, force_f32=force_f32)
        if name == "output.weight":
            tensor = np.roll(tensor, 1, axis=0)
        rows, columns = tensor.shape
        values = np.ascontiguousarray(tensor.astype(np.float16).astype(np.float32))
        out = np.empty((rows, columns // block * block_bytes), np.uint8)
        written = self.chunk(self.kind, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
        if written != out.nbytes:
            raise ValueError(f"{name}: ggml wrote {written} bytes, not {out.nbytes}")
        writer.add_tensor(name, out, raw_dtype=self.kind)
        return self.kind.name


if __name__ == "__main__":
    path, folder, out, kind = sys.argv[1:]
    converter = load_converter(path)
    converter.add_tensor = Quantizer(converter.add_tensor, GGMLQuantizationType[kind])
    sys.argv[1:] = ["--input", folder, "--output", out]
    converter.main()
