"""Turn recordings of any length into batches of segments, and the results into transcripts."""
