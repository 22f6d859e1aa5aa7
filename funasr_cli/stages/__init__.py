"""Stages after the transcript: between the scheduler, which knows none of them, and whoever shows or writes."""
