"""Fetch real model weights and recorded speech for tests and evaluations; run by `make real-data`."""
