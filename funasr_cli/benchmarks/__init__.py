"""What transcribing costs: a clip's stages, what batches save, how much memory long recordings take."""
