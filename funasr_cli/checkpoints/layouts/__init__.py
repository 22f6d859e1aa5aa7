"""The layouts that checkpoints of Fun-ASR-Nano come in: a reader for each, all giving a `Checkpoint`."""
