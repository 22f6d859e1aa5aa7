"""The CPU engine: a C library in `src`, compiled when the package is installed, and its callers."""
