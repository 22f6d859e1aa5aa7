"""From samples to the rows that encoders read."""
