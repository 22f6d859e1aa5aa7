"""Fixtures of the tests of tools."""

from support.small import make_checkpoint, short_wav, small_checkpoint, small_model

__all__ = ["make_checkpoint", "short_wav", "small_checkpoint", "small_model"]
