"""Fixtures of the unit tests."""

from support.small import (
    checkpoint,
    make_checkpoint,
    model,
    short_wav,
    small_checkpoint,
    small_model,
    stopping_model,
)

__all__ = [
    "checkpoint", "make_checkpoint", "model", "short_wav", "small_checkpoint", "small_model", "stopping_model",
]  # fmt: skip
