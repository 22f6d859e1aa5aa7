"""From a name or a hub id to a folder on disk."""
