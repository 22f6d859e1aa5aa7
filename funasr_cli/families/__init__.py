"""Model families, one folder each, and how a checkpoint's family is found and loaded."""
