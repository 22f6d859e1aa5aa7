"""Fun-ASR-Nano: SAN-M encoder, adaptor and Qwen3 decoder, with a CTC branch where the checkpoint has one."""
