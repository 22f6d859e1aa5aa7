"""Release acceptance: what nobody can test without the real weights, as one command. See docs/release.md."""
