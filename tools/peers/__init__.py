"""Benchmarks of this project and other programs on one machine; run by `make bench-peers`."""
