"""Whisper: a Transformer encoder over windows of 30 s, and a decoder with cross-attention."""
