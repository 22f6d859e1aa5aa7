"""Conversion of a checkpoint into a folder that loads fast."""
