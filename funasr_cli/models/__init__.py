"""MLX modules and their configs: no files, no printing, no tokenizer, no choice of device."""
