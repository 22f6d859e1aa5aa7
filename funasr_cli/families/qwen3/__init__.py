"""Qwen3: chat models, which write text from text."""
