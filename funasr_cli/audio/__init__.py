"""Bytes to mono float32 at the model's sample rate, and on to features."""
