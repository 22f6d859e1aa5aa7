"""Apply an encoder or adaptor to clips of different lengths, or to windows of one length, on either engine."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from funasr_cli.compute.backend import mx, nn
from funasr_cli.decoding.mlx_batch import right_pad
from funasr_cli.models.layers import batch_lengths

Frames: TypeAlias = "mx.array | np.ndarray"  # as the engine gives them


def on_clips(network: Callable[..., Any], clips: Sequence[Frames], stacked: int = 1) -> list[Frames]:
    """Apply a network to a batch of clips, (length, width) each, of NumPy or MLX.

    A network on MLX gets them padded on the right with zeros, and their lengths. One on the native engine gets
    them as they are.

    Returns:
        (ceil(length / stacked), width) for each clip, of NumPy or MLX as the network computes.
    """
    if not isinstance(network, nn.Module):
        return list(network([np.array(clip, copy=None) for clip in clips]))
    lengths = [len(clip) for clip in clips]
    batch = right_pad([mx.array(clip) for clip in clips])  # (batch, frames, width)
    out = network(batch, batch_lengths(lengths, batch.shape[1]))
    return [row[: -(-length // stacked)] for row, length in zip(out, lengths, strict=True)]


def on_windows(network: Callable[..., Any], windows: Sequence[np.ndarray]) -> list[Frames]:
    """Apply a network to windows of equal length, (length, width) each, which need no padding; see `on_clips`."""
    if not isinstance(network, nn.Module):
        return list(network(windows))
    out = network(mx.array(np.stack(windows)))
    mx.eval(out)
    return list(out)
