"""Development tools, not part of the wheel: see tools/README.md."""
