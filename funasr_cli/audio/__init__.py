"""Read audio as mono float32 samples at a chosen sample rate, and find speech in it."""
