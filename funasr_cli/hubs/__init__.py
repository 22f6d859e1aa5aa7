"""Find models and checkpoints: from a name or a hub id to a folder on disk."""
