"""Benchmarks of transcription: time per stage, effect of batches and drafts, memory for long recordings."""
