"""Embedding tables that are looked up row by row, in a converted model's file, which is never read as a whole."""

from collections.abc import Sequence

import numpy as np

from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import FORMAT, read_header


class Table:
    """The rows of a tensor."""

    def __init__(self, values: np.ndarray):
        self._values = values  # (rows, width)

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """Return the rows of these numbers, (ids, width) float32."""
        return self._values[np.asarray(ids, np.int64)].astype(np.float32)


def open_table(checkpoint: Checkpoint, name: str) -> Table:
    """Open a tensor (rows, width) of a checkpoint. Only in a converted model it stays in its file."""
    tensor, [path, *_] = checkpoint.tensors[name], checkpoint.weights
    if checkpoint.layout != FORMAT or tensor.dtype not in ("float16", "float32"):  # NumPy has no bfloat16
        return Table(np.array(tensor.read_in("float32")))
    start, _ = read_header(path).spans[name]
    return Table(np.memmap(path, tensor.dtype, "r", start, tensor.shape))
