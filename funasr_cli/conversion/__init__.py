"""From a checkpoint to a folder that is loaded fast."""
