"""From audio rows to text: prompt, token by token decoding, and what the tokens spell."""
