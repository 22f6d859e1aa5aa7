"""The same work given to other programs, in turns, on one machine; run by `make bench-peers`."""
