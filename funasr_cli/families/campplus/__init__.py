"""CAM++: embeddings of voices."""
