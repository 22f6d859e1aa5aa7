"""Names of FunASR-Qwen4B's tensors in each layout of its parts, as rules."""

from funasr_cli.checkpoints.keymap import FSMN, SAME, STACK, SWAP, Rule

ENCODER, ADAPTOR = "audio_encoder.", "audio_adaptor."
OMINIX_ENCODER = (
    Rule("encoder.{anything}.attn.qkv.{p}", "audio_encoder.{anything}.self_attn.linear_q_k_v.{p}"),
    Rule("encoder.{anything}.attn.fsmn.weight", "audio_encoder.{anything}.self_attn.fsmn_block.weight", SWAP),
    Rule("encoder.{anything}.attn.out.{p}", "audio_encoder.{anything}.self_attn.linear_out.{p}"),
    Rule("encoder.{anything}.ffn.w{n}.{p}", "audio_encoder.{anything}.feed_forward.w_{n}.{p}"),
    Rule(f"encoder.{FSMN.source}", f"audio_encoder.{FSMN.here}", SWAP),
    Rule("encoder.{anything}", "audio_encoder.{anything}"),
)
SENSE_VOICE = (Rule("encoder.{anything}", "audio_encoder.{anything}"), Rule("embed.weight", "embed.weight"))
PYTORCH_ADAPTOR = (
    Rule("transformer.layers.{n}.self_attn.in_proj_{p}", "audio_adaptor.layers.{n}.in_proj.{p}"),
    Rule("transformer.layers.{n}.self_attn.out_proj.{p}", "audio_adaptor.layers.{n}.out_proj.{p}"),
    Rule("transformer.layers.{n}.{anything}", "audio_adaptor.layers.{n}.{anything}"),
    Rule("{anything}", "audio_adaptor.{anything}"),
)
OMINIX_ADAPTOR = (
    Rule("layers.{n}.{qkv}_proj.{p}", "audio_adaptor.layers.{n}.in_proj.{p}", STACK),
    Rule("layers.{n}.ffn_{anything}", "audio_adaptor.layers.{n}.{anything}"),
    Rule("{anything}", "audio_adaptor.{anything}"),
)
OURS = SAME
