"""Random Fun-ASR-Nano checkpoints in exactly the layout of the upstream release.

`write_checkpoint(folder, spec)` writes `model.pt`, `config.yaml`, `configuration.json`, the LLM folder and
`multilingual.tiktoken`. The default `CheckpointSpec` has all 1,261 tensor names of the release at a tiny width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.tokenizers_bpe import write_json, write_rank_file, write_tokenizer
from tokenizers import Tokenizer

SENSEVOICE_SPECIALS = 1679  # special tokens that SenseVoiceTokenizer appends to the ranks in its file
UPSTREAM_CTC_VOCAB = 60515  # FunASRNano's default for `ctc_vocab_size`: 58,836 ranks + the special tokens


@dataclass(frozen=True)
class CheckpointSpec:
    """Shapes, file layout and weight scales of a random checkpoint. Defaults: full depth, tiny width."""

    # Audio encoder and frontend.
    encoder_dim: int = 64
    encoder_heads: int = 4
    encoder_ffn_dim: int = 128
    encoder_blocks: int = 50  # `num_blocks`: encoders0 (1) and encoders (the rest)
    encoder_tp_blocks: int = 20
    kernel_size: int = 11
    sanm_shift: int = 0
    sample_rate_hz: int = 16000
    window: str = "hamming"
    frame_length_ms: int = 25
    frame_shift_ms: int = 10
    n_mels: int = 80
    lfr_m: int = 7
    lfr_n: int = 6
    # Adaptor. Its output width is `llm_dim`.
    adaptor_ffn_dim: int = 128
    adaptor_layers: int = 2
    adaptor_heads: int | None = None  # None omits the key from config.yaml; upstream then uses 8
    adaptor_downsample: int = 1
    use_low_frame_rate: bool = True
    # Qwen3.
    llm_dim: int = 64
    llm_layers: int = 28
    llm_heads: int = 4
    llm_kv_heads: int = 2
    llm_head_dim: int = 32
    llm_ffn_dim: int = 128
    llm_vocab_size: int | None = None  # None: the tokenizer's size, rounded up to a multiple of 64
    llm_rope_theta: float = 1e6
    llm_rms_norm_eps: float = 1e-6
    llm_tied: bool = True
    llm_attention_bias: bool = False
    bpe_vocab_size: int = 800  # ordinary tokens; the special ones follow
    eos_token: str = "<|im_end|>"
    # CTC branch: whether its tensors exist. config.yaml always names a ctc_decoder.
    with_ctc: bool = False
    ctc_ranks: int = 900  # ordinary tokens in multilingual.tiktoken
    ctc_ffn_dim: int = 128
    ctc_layers: int = 5
    # Prompt switches in dataset_conf; None omits the key.
    do_think: bool | None = None
    sys_prompt: bool | None = None
    # File layout.
    container: str | None = "state_dict"  # or "model_state_dict", "model", None for a bare dict
    key_prefix: str = ""  # "module." as in distributed fine-tunes
    dtype: Any = "bfloat16"  # or a torch.dtype
    llm_folder: str = "Qwen3-0.6B"
    # Weights.
    seed: int = 0
    sharpness: float = 1.5  # standard deviation of q and k; attention scores have its square
    branch_gain: float = 0.6  # scale of a residual branch's contribution
    encoder_gain: float = 1.0  # extra factor on the branches of all encoder layers except the first
    encoder_entry_gain: float = 1.0  # scale of the first encoder layer's output
    adaptor_gain: float = 3.0  # standard deviation of linear2's output
    outlier_gain: float = 1.0  # extra factor on every 32nd channel of linear2's output
    embedding_std: float = 0.5
    eos_gain: float = 1.0  # factor on the stop token's row of the head; above 1, stopping is more likely

    @property
    def input_dim(self) -> int:
        """The width of a stacked feature row."""
        return self.n_mels * self.lfr_m

    @property
    def ctc_vocab_size(self) -> int:
        """The number of rows of `ctc.ctc_lo`. The last one is the blank."""
        return self.ctc_ranks + SENSEVOICE_SPECIALS


def release_spec(**changes: Any) -> CheckpointSpec:
    """Return the release's full size: 829.8 M parameters in bfloat16, plus the copy of the tied head."""
    shape = CheckpointSpec(
        encoder_dim=512, encoder_ffn_dim=2048, adaptor_ffn_dim=2048, llm_dim=1024, llm_heads=16,
        llm_kv_heads=8, llm_head_dim=128, llm_ffn_dim=3072, llm_vocab_size=151_936,
        ctc_ranks=UPSTREAM_CTC_VOCAB - SENSEVOICE_SPECIALS, ctc_ffn_dim=2048, embedding_std=0.1,
    )  # fmt: skip
    return dataclasses.replace(shape, **changes)


def write_checkpoint(folder: Path, spec: CheckpointSpec | None = None) -> Path:
    """Write the checkpoint that `spec` describes to `folder`, creating it if needed; return the folder."""
    import torch  # importing it takes two seconds, and most tests reuse a model converted by another process
    from support.weights import make_tensors

    spec = spec or CheckpointSpec()
    tokenizer = write_configuration(folder, spec)
    tensors = {spec.key_prefix + name: value for name, value in make_tensors(spec, tokenizer).items()}
    torch.save({spec.container: tensors} if spec.container else tensors, folder / "model.pt")
    return folder


def write_configuration(folder: Path, spec: CheckpointSpec) -> Tokenizer:
    """Write everything except the tensors, and return the decoder's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_llm_folder(folder / spec.llm_folder, spec)
    write_rank_file(folder / "multilingual.tiktoken", spec.ctc_ranks)
    config = upstream_config(spec)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    llm_path = {"init_param_path": spec.llm_folder}
    metas = {
        "init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": llm_path, "llm_conf": llm_path,
        "dataset_conf": {"ctc_tokenizer_conf": {"vocab_path": "multilingual.tiktoken"}},
    }  # fmt: skip
    configuration = {"framework": "pytorch", "task": "auto-speech-recognition", "file_path_metas": metas}
    write_json(folder / "configuration.json", configuration)
    return tokenizer


def upstream_config(spec: CheckpointSpec) -> dict[str, Any]:
    """Return the content of `config.yaml`, with the release's keys except those for training."""
    dataset_conf: dict[str, Any] = {
        "ctc_tokenizer": "SenseVoiceTokenizer",
        "ctc_tokenizer_conf": {"vocab_path": None, "is_multilingual": True, "num_languages": 8749},
    }
    dataset_conf |= {} if spec.do_think is None else {"do_think": spec.do_think}
    dataset_conf |= {} if spec.sys_prompt is None else {"sys_prompt": spec.sys_prompt}
    adaptor_conf = {
        "downsample_rate": spec.adaptor_downsample, "use_low_frame_rate": spec.use_low_frame_rate,
        "ffn_dim": spec.adaptor_ffn_dim, "llm_dim": spec.llm_dim, "encoder_dim": spec.encoder_dim,
        "n_layer": spec.adaptor_layers, "freeze": True,
    }  # fmt: skip
    adaptor_conf |= {} if spec.adaptor_heads is None else {"attention_heads": spec.adaptor_heads}
    ctc_vocab = {} if spec.ctc_vocab_size == UPSTREAM_CTC_VOCAB else {"ctc_vocab_size": spec.ctc_vocab_size}
    return {
        "model": "FunASRNano",
        "model_conf": {"lsm_weight": 0.1, "length_normalized_loss": True},
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": {
            "output_size": spec.encoder_dim, "attention_heads": spec.encoder_heads,
            "linear_units": spec.encoder_ffn_dim, "num_blocks": spec.encoder_blocks,
            "tp_blocks": spec.encoder_tp_blocks, "dropout_rate": 0.1, "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1, "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True, "kernel_size": spec.kernel_size, "sanm_shfit": spec.sanm_shift,
            "selfattention_layer_type": "sanm", "freeze": True, "freeze_layer_num": -1, "feat_permute": True,
        },
        "llm": "Qwen3-0.6b",
        "llm_conf": {
            "hub": "hf", "freeze": True, "llm_dtype": "bf16", "init_param_path": spec.llm_folder,
            "use_lora": False,
        },
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": adaptor_conf,
        "ctc_decoder": "Transformer",
        "ctc_decoder_conf": {
            "downsample_rate": 1, "ffn_dim": spec.ctc_ffn_dim, "llm_dim": spec.encoder_dim,
            "encoder_dim": spec.encoder_dim, "n_layer": spec.ctc_layers, "freeze": False,
        },
        **ctc_vocab,
        "ctc_weight": 1.0,
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
        "detach_ctc_decoder": True,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": spec.sample_rate_hz, "window": spec.window, "n_mels": spec.n_mels,
            "frame_length": spec.frame_length_ms, "frame_shift": spec.frame_shift_ms,
            "lfr_m": spec.lfr_m, "lfr_n": spec.lfr_n, "cmvn_file": None,
        },
        "dataset_conf": dataset_conf,
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": "${llm_conf.init_param_path}"},
    }  # fmt: skip


def llm_vocab_size(spec: CheckpointSpec, tokenizer: Tokenizer) -> int:
    return spec.llm_vocab_size or -(-tokenizer.get_vocab_size() // 64) * 64


def _write_llm_folder(folder: Path, spec: CheckpointSpec) -> Tokenizer:
    """Write Qwen3's config and tokenizer files; return the tokenizer as loaded from `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, spec.bpe_vocab_size)
    pad_id, eos_id = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id(spec.eos_token)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": spec.llm_attention_bias, "attention_dropout": 0.0,
        "bos_token_id": pad_id, "eos_token_id": eos_id, "head_dim": spec.llm_head_dim, "hidden_act": "silu",
        "hidden_size": spec.llm_dim, "initializer_range": 0.02, "intermediate_size": spec.llm_ffn_dim,
        "max_position_embeddings": 40960, "max_window_layers": spec.llm_layers, "model_type": "qwen3",
        "num_attention_heads": spec.llm_heads, "num_hidden_layers": spec.llm_layers,
        "num_key_value_heads": spec.llm_kv_heads, "rms_norm_eps": spec.llm_rms_norm_eps, "rope_scaling": None,
        "rope_theta": spec.llm_rope_theta, "sliding_window": None, "tie_word_embeddings": spec.llm_tied,
        "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
        "vocab_size": llm_vocab_size(spec, tokenizer),
    }  # fmt: skip
    write_json(folder / "config.json", config)
    generation = {"bos_token_id": pad_id, "pad_token_id": pad_id, "eos_token_id": [eos_id, pad_id]}
    write_json(folder / "generation_config.json", generation | {"do_sample": True, "temperature": 0.6})
    return tokenizer
