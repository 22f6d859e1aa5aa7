"""The tensors of random checkpoints.

They are random but *sensitive*: attention is sharp, FSMN taps are asymmetric, norm weights differ from 1 and
biases from 0. A misread layout therefore changes the outputs by far more than rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from support.checkpoints import CheckpointSpec, llm_vocab_size
from tokenizers import Tokenizer


class Weights:
    """Draws tensors in a fixed order and stores them under their upstream names."""

    def __init__(self, spec: CheckpointSpec) -> None:
        self.dtype = getattr(torch, str(spec.dtype).removeprefix("torch."))
        self.tensors: dict[str, torch.Tensor] = {}
        self._generator = torch.Generator().manual_seed(spec.seed)

    def draw(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator).mul_(std).add_(mean)

    def put(self, name: str, value: torch.Tensor) -> None:
        self.tensors[name] = value.to(self.dtype).contiguous()

    def linear(
        self, name: str, n_in: int, n_out: int, gain: Any = 1.0, bias: float = 0.1, blind_to: int = 1
    ) -> None:
        """Add a linear layer: unit-variance input gives outputs of standard deviation `gain` (one, or per row).

        `bias` is the standard deviation of the bias before that gain; 0 adds none.

        `blind_to`: the layer ignores what this many equal groups of the input have in common (if it is the input's
        width: the mean). Otherwise random layers accumulate the common part, and frames become indistinguishable.
        """
        scale = torch.as_tensor(gain, dtype=torch.float32).expand(n_out)
        weight = self.draw(n_out, n_in, std=n_in**-0.5) * scale[:, None]
        if blind_to > 1:
            grouped = weight.view(n_out, blind_to, -1)
            weight = (grouped - grouped.mean(1, keepdim=True)).view(n_out, n_in)
        self.put(f"{name}.weight", weight)
        if bias:
            self.put(f"{name}.bias", self.draw(n_out, std=bias) * scale)

    def norm(self, name: str, dim: int, bias: bool = True, mean: float = 1.0) -> None:
        self.put(f"{name}.weight", self.draw(dim, std=0.2 * mean, mean=mean))
        if bias:
            self.put(f"{name}.bias", self.draw(dim, std=0.1))

    def feed_forward(self, name: str, dim: int, hidden: int, gain: float) -> None:
        self.linear(f"{name}.w_1", dim, hidden, gain=2**0.5)
        self.linear(f"{name}.w_2", hidden, dim, gain=gain, blind_to=hidden)


def make_tensors(spec: CheckpointSpec, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Return every tensor of the state dict by upstream name, without a key prefix."""
    weights = Weights(spec)
    put_encoder(weights, "audio_encoder", spec)
    gain = torch.full((spec.llm_dim,), spec.adaptor_gain)
    gain[::32] *= spec.outlier_gain
    _put_adaptor(
        weights, "audio_adaptor", spec, spec.adaptor_ffn_dim, spec.adaptor_layers, gain, spec.adaptor_downsample
    )
    if spec.with_ctc:
        dim, vocab = spec.encoder_dim, spec.ctc_vocab_size
        _put_adaptor(weights, "ctc_decoder", spec, spec.ctc_ffn_dim, spec.ctc_layers, torch.full((dim,), 3.0))
        weights.linear("ctc.ctc_lo", dim, vocab)
        bias = weights.tensors["ctc.ctc_lo.bias"]
        bias[spec.ctc_ranks :] -= 100  # ordinary tokens and the blank share the frames
        bias[-1] = 14
    _put_llm(weights, spec, tokenizer)
    return weights.tensors


def put_encoder(weights: Weights, name: str, spec: CheckpointSpec) -> None:
    """Add the SAN-M encoder that Fun-ASR-Nano and SenseVoice have."""
    stacks = {"encoders0": 1, "encoders": spec.encoder_blocks - 1, "tp_encoders": spec.encoder_tp_blocks}
    for stack, count in stacks.items():
        for index in range(count):
            _put_sanm_layer(weights, f"{name}.{stack}.{index}", spec, first=stack == "encoders0")
    weights.norm(f"{name}.after_norm", spec.encoder_dim)
    weights.norm(f"{name}.tp_norm", spec.encoder_dim)


def _put_sanm_layer(weights: Weights, name: str, spec: CheckpointSpec, first: bool) -> None:
    dim, n_in = spec.encoder_dim, spec.input_dim if first else spec.encoder_dim
    out = spec.encoder_entry_gain if first else spec.branch_gain * spec.encoder_gain
    packed = torch.tensor([spec.sharpness, spec.sharpness, out]).repeat_interleave(dim)
    packed *= 3.0 if first else 1.0
    blind_to = spec.lfr_m if first else 1  # ignore the constant spectrum
    weights.linear(f"{name}.self_attn.linear_q_k_v", n_in, 3 * dim, gain=packed, blind_to=blind_to)
    weights.linear(f"{name}.self_attn.linear_out", dim, dim, gain=1.5, bias=0.1 * out)
    tilt = torch.linspace(0.4, 0.04, spec.kernel_size)  # the past has more weight than the future
    weights.put(f"{name}.self_attn.fsmn_block.weight", weights.draw(dim, 1, spec.kernel_size) * tilt)
    weights.feed_forward(f"{name}.feed_forward", dim, spec.encoder_ffn_dim, gain=out)
    weights.norm(f"{name}.norm1", n_in)
    weights.norm(f"{name}.norm2", dim)


def _put_adaptor(
    weights: Weights,
    name: str,
    spec: CheckpointSpec,
    ffn: int,
    layers: int,
    gain: torch.Tensor,
    downsample: int = 1,
) -> None:
    dim = gain.numel()  # `gain`: the standard deviation of each output channel of linear2
    weights.linear(f"{name}.linear1", spec.encoder_dim * downsample, ffn, gain=2**0.5)
    weights.linear(f"{name}.linear2", ffn, dim, gain=gain, blind_to=ffn)
    for block in (f"{name}.blocks.{index}" for index in range(layers)):
        scales = {"q": spec.sharpness, "k": spec.sharpness, "v": 1.0, "out": 2 * spec.branch_gain}
        for part, scale in scales.items():
            weights.linear(f"{block}.self_attn.linear_{part}", dim, dim, gain=scale)
        weights.feed_forward(f"{block}.feed_forward", dim, dim // 4, gain=spec.branch_gain)
        weights.norm(f"{block}.norm1", dim)
        weights.norm(f"{block}.norm2", dim)


def _put_llm(weights: Weights, spec: CheckpointSpec, tokenizer: Tokenizer) -> None:
    dim, vocab = spec.llm_dim, llm_vocab_size(spec, tokenizer)
    bias = 0.1 if spec.llm_attention_bias else 0
    q_dim, kv_dim = spec.llm_heads * spec.llm_head_dim, spec.llm_kv_heads * spec.llm_head_dim
    embedding = weights.draw(vocab, dim, std=spec.embedding_std)
    embedding[tokenizer.token_to_id(spec.eos_token)] *= spec.eos_gain
    weights.put("llm.model.embed_tokens.weight", embedding)
    for layer in (f"llm.model.layers.{index}" for index in range(spec.llm_layers)):
        for part, n_in, n_out, gain in (
            ("self_attn.q_proj", dim, q_dim, 1.0),
            ("self_attn.k_proj", dim, kv_dim, 1.0),
            ("self_attn.v_proj", dim, kv_dim, 1.0),
            ("self_attn.o_proj", q_dim, dim, 2 * spec.branch_gain),
            ("mlp.gate_proj", dim, spec.llm_ffn_dim, 1.0),
            ("mlp.up_proj", dim, spec.llm_ffn_dim, 1.0),
            ("mlp.down_proj", spec.llm_ffn_dim, dim, 2 * spec.branch_gain),
        ):
            weights.linear(
                f"{layer}.{part}", n_in, n_out, gain=gain, bias=bias if part.startswith("self_attn") else 0
            )
        weights.norm(f"{layer}.self_attn.q_norm", spec.llm_head_dim, bias=False, mean=spec.sharpness)
        weights.norm(f"{layer}.self_attn.k_norm", spec.llm_head_dim, bias=False, mean=spec.sharpness)
        weights.norm(f"{layer}.input_layernorm", dim, bias=False)
        weights.norm(f"{layer}.post_attention_layernorm", dim, bias=False)
    head_std = 4.0 / dim**0.5  # with norm weights of 1, the logits have standard deviation 4
    norm_mean = head_std / spec.embedding_std if spec.llm_tied else 1.0
    weights.norm("llm.model.norm", dim, bias=False, mean=norm_mean)
    head = embedding if spec.llm_tied else weights.draw(vocab, dim, std=head_std)
    if not spec.llm_tied:
        head[tokenizer.token_to_id(spec.eos_token)] *= spec.eos_gain
    weights.put("llm.lm_head.weight", head.clone())  # a tied head is stored twice, as in the release
