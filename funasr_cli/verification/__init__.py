"""Verify a conversion: compare the result with its source, with PyTorch and with its own list of hashes."""
