"""Error rates, word times and drafts of the bundled model on many clips: `make eval`."""
