"""Proof of a conversion: the result beside its source, beside PyTorch, and beside its own list of hashes."""
