"""From many recordings of any length to batches, and back."""
