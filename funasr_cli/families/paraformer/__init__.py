"""Paraformer: fast recognition of Mandarin, all tokens of a segment in one step."""
