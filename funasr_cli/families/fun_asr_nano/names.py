"""Names of Fun-ASR-Nano's tensors in each layout, as rules, and the parts that they belong to.

The network's attributes are named after FunASR's keys. mlx-audio uses the same names.
"""

from collections.abc import Iterable

from funasr_cli.checkpoints.keymap import FSMN, HEAD, SAME, STACK, SWAP, Rule, Tied
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig
from funasr_cli.options import ENCODER_BITS, RECIPES

LM_HEAD = "llm.lm_head.weight"
EMBEDDING = "llm.model.embed_tokens.weight"
CTC_PREFIXES = ("ctc_decoder.", "ctc.")
PARTS = (
    Part("quantize", "the decoder", ("llm.",), RECIPES, whole=True),
    # A matrix may stay dense: the first one's rows are as wide as feature rows, which need not divide into groups.
    Part("quantize_encoder", "the encoder", ("audio_encoder.",), ENCODER_BITS),
)

OURS = (Rule(LM_HEAD, LM_HEAD, HEAD), *SAME)
FUNASR = (FSMN, *OURS)
_TOWER, _ENCODER = "model.audio_tower.layers.{block}", "audio_encoder.{block}"
_PROJECTOR, _ADAPTOR = "model.multi_modal_projector", "audio_adaptor"
_LAYER, _BLOCK = f"{_PROJECTOR}.layers.{{n}}", f"{_ADAPTOR}.blocks.{{n}}"
TRANSFORMERS = (
    Rule(f"{_TOWER}.self_attn.{{qkv}}_proj.{{p}}", f"{_ENCODER}.self_attn.linear_q_k_v.{{p}}", STACK),
    Rule(f"{_TOWER}.self_attn.o_proj.{{p}}", f"{_ENCODER}.self_attn.linear_out.{{p}}"),
    Rule(f"{_TOWER}.self_attn.fsmn.conv.weight", f"{_ENCODER}.self_attn.fsmn_block.weight", SWAP),
    Rule(f"{_TOWER}.mlp.fc{{n}}.{{p}}", f"{_ENCODER}.feed_forward.w_{{n}}.{{p}}"),
    Rule(f"{_TOWER}.input_layernorm.{{p}}", f"{_ENCODER}.norm1.{{p}}"),
    Rule(f"{_TOWER}.post_attention_layernorm.{{p}}", f"{_ENCODER}.norm2.{{p}}"),
    Rule("model.audio_tower.layers.{last}.final_layernorm.{p}", "audio_encoder.{last}.{p}"),
    Rule(f"{_PROJECTOR}.linear_{{n}}.{{p}}", f"{_ADAPTOR}.linear{{n}}.{{p}}"),
    Rule(f"{_LAYER}.self_attn.{{qkv}}_proj.{{p}}", f"{_BLOCK}.self_attn.linear_{{qkv}}.{{p}}"),
    Rule(f"{_LAYER}.self_attn.o_proj.{{p}}", f"{_BLOCK}.self_attn.linear_out.{{p}}"),
    Rule(f"{_LAYER}.mlp.fc1.{{p}}", f"{_BLOCK}.feed_forward.w_1.{{p}}"),
    Rule(f"{_LAYER}.mlp.fc2.{{p}}", f"{_BLOCK}.feed_forward.w_2.{{p}}"),
    Rule(f"{_LAYER}.input_layernorm.{{p}}", f"{_BLOCK}.norm1.{{p}}"),
    Rule(f"{_LAYER}.post_attention_layernorm.{{p}}", f"{_BLOCK}.norm2.{{p}}"),
    Rule("model.language_model.{anything}", "llm.model.{anything}"),
    Rule("lm_head.weight", LM_HEAD, HEAD),
)  # fmt: skip


def tied(config: FunASRNanoConfig) -> Tied | None:
    """Return the decoder's head and embedding if the config ties them; else None."""
    return Tied(LM_HEAD, EMBEDDING) if config.llm.tie_word_embeddings else None


def has_ctc(names: Iterable[str]) -> bool:
    """Return whether a checkpoint has a CTC branch. Its tensors decide, not its configuration."""
    return any(name.startswith(CTC_PREFIXES) for name in names)
