"""Fun-ASR-Nano: SAN-M encoder, adaptor and Qwen3 decoder, with a CTC branch if the checkpoint has one."""
