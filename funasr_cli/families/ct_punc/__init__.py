"""CT-Transformer: a model that inserts punctuation into the text of others, in Chinese and English."""
