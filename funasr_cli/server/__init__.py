"""An HTTP server with OpenAI's interface for transcriptions. It moves bytes; one thread computes."""
