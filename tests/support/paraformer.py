"""Random Paraformer checkpoints in exactly the layout of the upstream releases: plain, BiCif and SeACo."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.checkpoints import CheckpointSpec
from support.sense_voice import CMVN_FILE, TOKENS_FILE, cmvn_text

CLASSES = {"plain": "Paraformer", "bicif": "BiCifParaformer", "seaco": "SeacoParaformer"}
SPELLING_FILE = "seg_dict"
CONTROL = ["<blank>", "<s>", "</s>"]
CHARACTERS = list("你好世界今天气很不错我们开始语音识别") + list("abcdefghijklmnopqrstuvwxyz")
WORDS = ["lo", "ld", "phone", "the", "there", "'s", "1", "2", "5"]
RARE = ["hel@@", "wor@@", "micro@@", "."]  # upstream's text rules have faults with these, so they are unlikely
SPELLINGS = {"hello": "hel@@ lo", "world": "wor@@ ld", "microphone": "micro@@ phone"}
HOTWORD_LAYERS = 6
SIZES = CheckpointSpec(
    encoder_dim=64, encoder_ffn_dim=128, encoder_blocks=4, encoder_tp_blocks=0, dtype="float32", seed=4
)
RELEASE = dataclasses.replace(SIZES, encoder_dim=512, encoder_ffn_dim=2048, encoder_blocks=50)
RELEASE_TOKENS = 8404


@dataclass(frozen=True)
class ParaformerSpec:
    """Options of a random checkpoint."""

    kind: str = "plain"
    sizes: CheckpointSpec = SIZES  # sizes of the encoder and frontend, and the container
    decoder_layers: int = 3
    tokens: int | None = None  # their number; None: a few


def token_texts(count: int | None = None) -> list[str]:
    """Return the tokens: control tokens first, <unk> last, as in the releases."""
    texts = [*CONTROL, *CHARACTERS, *WORDS, *RARE]
    if count:
        others = (chr(code) for code in range(0x4E00, 0x9FFF) if chr(code) not in CHARACTERS)
        texts += [next(others) for _ in range(count - len(texts) - 1)]
    return [*texts, "<unk>"]


def upstream_config(spec: ParaformerSpec) -> dict[str, Any]:
    """Return the content of ``config.yaml``, with the releases' keys except those for training."""
    sizes, tokens = spec.sizes, token_texts(spec.tokens)
    decoder = {
        "attention_heads": 4, "linear_units": sizes.encoder_ffn_dim, "num_blocks": spec.decoder_layers,
        "dropout_rate": 0.1, "positional_dropout_rate": 0.1, "self_attention_dropout_rate": 0.1,
        "src_attention_dropout_rate": 0.1, "att_layer_num": spec.decoder_layers, "kernel_size": 11,
        "sanm_shfit": 0,
    }  # fmt: skip
    predictor = {"idim": sizes.encoder_dim, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
    config = {
        "model": CLASSES[spec.kind],
        "model_conf": {
            "ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True, "predictor_weight": 1.0,
            "predictor_bias": 1, "sampling_ratio": 0.75,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": sizes.encoder_dim, "attention_heads": sizes.encoder_heads,
            "linear_units": sizes.encoder_ffn_dim, "num_blocks": sizes.encoder_blocks, "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1, "attention_dropout_rate": 0.1, "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True,
            "kernel_size": sizes.kernel_size, "sanm_shfit": sizes.sanm_shift, "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder,
        "predictor": "CifPredictorV2",
        "predictor_conf": predictor,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": sizes.sample_rate_hz, "window": sizes.window, "n_mels": sizes.n_mels,
            "frame_length": sizes.frame_length_ms, "frame_shift": sizes.frame_shift_ms, "lfr_m": sizes.lfr_m,
            "lfr_n": sizes.lfr_n,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }  # fmt: skip
    if spec.kind != "plain":
        config["predictor"] = "CifPredictorV3"
        predictor |= {
            "smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3, "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        }  # fmt: skip
    if spec.kind == "seaco":
        config["model_conf"] |= {
            "inner_dim": sizes.encoder_dim, "bias_encoder_type": "lstm", "bias_encoder_bid": False,
            "seaco_lsm_weight": 0.1, "seaco_length_normal": True, "train_decoder": True,
            "NO_BIAS": no_bias(tokens),
        }  # fmt: skip
        config["seaco_decoder"] = "ParaformerSANMDecoder"
        # `att_layer_num` is missing, as in the release: its default is 6, whatever `num_blocks` says.
        config["seaco_decoder_conf"] = {
            **{key: value for key, value in decoder.items() if key != "att_layer_num"}, "num_blocks": 4,
            "linear_units": sizes.encoder_ffn_dim // 2, "kernel_size": 21, "use_output_layer": False,
            "wo_input_layer": True,
        }  # fmt: skip
    return config


def no_bias(tokens: list[str]) -> int:
    """Return the hotword decoder's output where it hears no hotword, as far from the end as in the release."""
    return len(tokens) - 27


def write_paraformer(folder: Path, spec: ParaformerSpec | None = None) -> Path:
    """Write the checkpoint that `spec` describes to `folder`, creating it if needed, and return the folder."""
    import torch

    spec = spec or ParaformerSpec()
    sizes, texts = spec.sizes, token_texts(spec.tokens)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {sizes.key_prefix + name: value for name, value in make_tensors(spec).items()}
    torch.save({sizes.container: tensors} if sizes.container else tensors, folder / "model.pt")
    (folder / TOKENS_FILE).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    spellings = {**{char: char for char in CHARACTERS}, **SPELLINGS}
    lines = [f"{word} {tokens}\n" for word, tokens in spellings.items()]
    (folder / SPELLING_FILE).write_text("".join(lines), encoding="utf-8")
    draw = np.random.default_rng(sizes.seed)
    shift, scale = draw.normal(-11, 1.5, sizes.input_dim), draw.normal(0.3, 0.02, sizes.input_dim)
    (folder / CMVN_FILE).write_text(cmvn_text(shift, scale), encoding="utf-8")
    content = yaml.safe_dump(upstream_config(spec), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(content, encoding="utf-8")
    metas = {
        "init_param": "model.pt", "config": "config.yaml",
        "tokenizer_conf": {"token_list": TOKENS_FILE, "seg_dict_file": SPELLING_FILE},
        "frontend_conf": {"cmvn_file": CMVN_FILE},
    }  # fmt: skip
    configuration = {"framework": "pytorch", "task": "auto-speech-recognition", "file_path_metas": metas}
    (folder / "configuration.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    return folder


def make_tensors(spec: ParaformerSpec) -> dict[str, Any]:
    """Return every tensor of the state dict by upstream name, without a key prefix."""
    import torch
    from support.weights import Weights, put_encoder

    sizes, texts = spec.sizes, token_texts(spec.tokens)
    dim, count = sizes.encoder_dim, len(texts)
    weights = Weights(sizes)
    put_encoder(weights, "encoder", sizes)
    for part in ("weight", "bias"):
        weights.tensors.pop(f"encoder.tp_norm.{part}")
    weights.put("decoder.embed.0.weight", weights.draw(count, dim))
    put_decoder(weights, "decoder", sizes, spec.decoder_layers, sizes.encoder_ffn_dim, 11)
    weights.linear("decoder.output_layer", dim, count, gain=3.0)
    rare = [texts.index(text) for text in RARE]
    weights.tensors["decoder.output_layer.bias"][rare] -= 20
    weights.put("predictor.cif_conv1d.weight", weights.draw(dim, dim, 3, std=(3 * dim) ** -0.5))
    weights.put("predictor.cif_conv1d.bias", weights.draw(dim, std=0.1))
    weights.linear("predictor.cif_output", dim, 1, gain=1.5)
    weights.tensors["predictor.cif_output.bias"] -= 1.5  # a token in about four frames
    if spec.kind != "plain":
        weights.put("predictor.upsample_cnn.weight", weights.draw(dim, dim, 3, std=dim**-0.5))
        weights.put("predictor.upsample_cnn.bias", weights.draw(dim, std=0.1))
        put_lstm(weights, "predictor.blstm", dim, ("l0", "l0_reverse"))
        weights.linear("predictor.cif_output2", 2 * dim, 1, gain=8.0)
    if spec.kind == "seaco":
        put_lstm(weights, "bias_encoder", dim, ("l0", "l1"))
        put_decoder(weights, "seaco_decoder", sizes, HOTWORD_LAYERS, sizes.encoder_ffn_dim // 2, 21)
        weights.linear("hotword_output_layer", dim, count, gain=2.0)
        weights.tensors["hotword_output_layer.bias"][no_bias(texts)] += 4  # about half of the outputs
        weights.tensors["hotword_output_layer.bias"][rare] -= 20
    assert all(torch.isfinite(value).all() for value in weights.tensors.values())
    return weights.tensors


def put_decoder(weights: Any, name: str, sizes: CheckpointSpec, layers: int, hidden: int, taps: int) -> None:
    """Add a decoder, without its embedding and output layer."""
    dim = sizes.encoder_dim
    for layer in (*(f"{name}.decoders.{number}" for number in range(layers)), f"{name}.decoders3.0"):
        weights.linear(f"{layer}.feed_forward.w_1", dim, hidden, gain=2**0.5)
        weights.linear(f"{layer}.feed_forward.w_2", hidden, dim, bias=0)
        weights.norm(f"{layer}.feed_forward.norm", hidden)
        weights.norm(f"{layer}.norm1", dim)
        if layer.endswith("decoders3.0"):
            continue
        weights.put(f"{layer}.self_attn.fsmn_block.weight", weights.draw(dim, 1, taps, std=0.3))
        parts = {
            "linear_q": (dim, sizes.sharpness),
            "linear_k_v": (2 * dim, sizes.sharpness),
            "linear_out": (dim, 1.0),
        }
        for part, (outputs, gain) in parts.items():
            weights.linear(f"{layer}.src_attn.{part}", dim, outputs, gain=gain)
        weights.norm(f"{layer}.norm2", dim)
        weights.norm(f"{layer}.norm3", dim)
    weights.norm(f"{name}.after_norm", dim)


def put_lstm(weights: Any, name: str, dim: int, parts: tuple[str, ...]) -> None:
    """Add LSTM layers or directions."""
    for part in parts:
        for kind in ("ih", "hh"):
            weights.put(f"{name}.weight_{kind}_{part}", weights.draw(4 * dim, dim, std=dim**-0.5))
            weights.put(f"{name}.bias_{kind}_{part}", weights.draw(4 * dim, std=0.1))
