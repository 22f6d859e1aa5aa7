"""What lies on disk: where models come from, how they are laid out, how they are converted and loaded."""
