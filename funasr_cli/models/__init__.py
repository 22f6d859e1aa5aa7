"""MLX modules and their configurations, free of file access, output, tokenizers and device selection."""
