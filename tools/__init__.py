"""Tools of this repository, none of them in the wheel: see tools/README.md."""
