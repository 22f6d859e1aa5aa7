"""Checkpoints on disk: layouts, safe reading, names of tensors, and quantization."""
