"""From audio embeddings to text: autoregressive decoding, CTC output, stopping criteria and word times."""
