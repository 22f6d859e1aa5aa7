"""The model families, one folder each; finding a checkpoint's family, and loading it."""
