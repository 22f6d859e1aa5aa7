"""FunASR-Qwen4B: encoder of SenseVoiceSmall, post-norm Transformer adaptor, Qwen3-4B."""
