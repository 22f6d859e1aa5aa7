"""From samples to feature rows, the input of encoders."""
