"""Where MLX computes: its back end, the device, its buffers and streams."""
