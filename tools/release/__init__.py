"""Release acceptance: one command for the tests that need the real weights. See docs/release.md."""
