"""Names of tensors of encoder-decoders in Transformers: BART's, which later ones such as Whisper inherited.

Here they have the names of OpenAI's Whisper.
"""

from funasr_cli.checkpoints.keymap import HEAD, Rule, Tied

MODULES = {  # of a layer; cross-attention only in decoders
    "self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key", "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key", "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out", "encoder_attn_layer_norm": "cross_attn_ln", "fc1": "mlp1",
    "fc2": "mlp2", "final_layer_norm": "mlp_ln",
}  # fmt: skip
LM_HEAD = "decoder.proj_out.weight"
TIED = Tied(LM_HEAD, "decoder.token_embedding.weight")
RULES = (
    *(Rule(f"{side}.embed_positions.weight", f"{side}.positional_embedding") for side in ("encoder", "decoder")),
    Rule("decoder.embed_tokens.{p}", "decoder.token_embedding.{p}"),
    Rule("encoder.layer_norm.{p}", "encoder.ln_post.{p}"),
    Rule("decoder.layer_norm.{p}", "decoder.ln.{p}"),
    *(
        Rule(f"{side}.layers.{{n}}.{there}.{{p}}", f"{side}.blocks.{{n}}.{here}.{{p}}")
        for side in ("encoder", "decoder")
        for there, here in MODULES.items()
        if side == "decoder" or "cross" not in here
    ),
    Rule("proj_out.weight", LM_HEAD, HEAD),
)
