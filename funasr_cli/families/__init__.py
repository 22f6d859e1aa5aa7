"""The model families, each a folder; which of them a checkpoint belongs to, and loading it."""
