"""MLX's back end, device, memory and streams."""
