"""From audio embeddings to text: prompt, token by token decoding, and what the tokens spell."""
