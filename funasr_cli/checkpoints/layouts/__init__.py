"""The layouts that others write checkpoints of Fun-ASR-Nano in: a reader for each, all giving a `Checkpoint`.

What is missing, damaged, hostile or not supported is a `ModelError`; a missing torch, a `SetupError`.
"""
