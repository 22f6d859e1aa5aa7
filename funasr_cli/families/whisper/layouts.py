"""Readers of Whisper's layouts: OpenAI's and FunASR's pickles, Transformers' folders, and mlx-whisper's.

All sizes follow from the tensors' shapes, since heads always have 64 values. So a configuration is read only for
what the tensors do not say: alignment heads, and in Transformers' layout, the vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import bart, funasr, keymap, quantize
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.byte_tokens import Tables, to_text
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import SAME, SWAP, Rule
from funasr_cli.checkpoints.npz import open_npz
from funasr_cli.checkpoints.pickles import read_state_dict, require_torch
from funasr_cli.checkpoints.shards import open_weights_or_pickle, refuse_quantized
from funasr_cli.checkpoints.tensors import Tensor, open_safetensors, usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in, read_json
from funasr_cli.checkpoints.values import Options, check_config, require, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.families.whisper import tokens
from funasr_cli.families.whisper.config import WhisperConfig, misfits, usual_heads
from funasr_cli.languages import WHISPER_TOKEN_OF
from funasr_cli.models.sanm import sinusoidal_positions
from funasr_cli.models.whisper_decoder import WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import WhisperEncoderConfig

MODEL = "WhisperWarp"  # FunASR's class
OPENAI, TRANSFORMERS, MLX = "OpenAI", "Transformers", "mlx-whisper"
MLX_WEIGHTS = ("weights.safetensors", "weights.npz")
POSITIONS, MLX_HEADS = "encoder.positional_embedding", "alignment_heads"

_CONVOLUTION = Rule("encoder.conv{n}.weight", "encoder.conv{n}.weight", SWAP)
OPENAI_RULES = (
    _CONVOLUTION,
    *(Rule(f"{{anything}}.mlp.{old}.{{p}}", f"{{anything}}.mlp{new}.{{p}}") for old, new in ((0, 1), (2, 2))),
    *SAME,
)
TRANSFORMERS_RULES = (_CONVOLUTION, *bart.RULES)


def open_openai(path: Path, name: str, layout: str = OPENAI) -> Checkpoint:
    """Open a pickle of OpenAI's, such as ``base.pt``, or of FunASR, which may put ``model.`` before the names."""
    require_torch(path.name)
    stored = _unprefixed(read_state_dict(path))
    tensors = keymap.translate(stored, OPENAI_RULES, str(path))
    return _checkpoint(layout, path, tensors, name=f"{name} {path.name}", weights=(path,))


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a FunASR folder, given the content of its ``config.yaml``."""
    with stated_in(str(folder / funasr.UPSTREAM_CONFIG)):
        require(options, "frontend", "WhisperFrontend", default="WhisperFrontend")
    return open_openai(funasr.weights_file(folder), name, funasr.LAYOUT)


def open_transformers(folder: Path, name: str) -> Checkpoint:
    """Open a folder in Transformers' layout: safetensors, or ``pytorch_model.bin``."""
    path = file_in(folder, files.CONFIG_FILE)
    content = read_json(path)
    refuse_quantized(content, path)
    with stated_in(str(path)):
        require(content, "activation_function", "gelu", default="gelu")
        require(content, "scale_embedding", False, default=False)
    weights, stored = open_weights_or_pickle(folder)
    tensors = keymap.translate(_unprefixed(stored), TRANSFORMERS_RULES, str(folder), tied=bart.TIED)
    generation = optional_file_in(folder, files.GENERATION_FILE)
    stated = read_json(generation).get("alignment_heads") if generation else None
    tokenizer = file_in(folder, files.TOKENIZER_FILE, "copy it from the model that this one was made from")
    return _checkpoint(
        TRANSFORMERS, path, tensors, name=name, weights=weights, heads=stated,
        quantization=content.get("quantization"), vocabulary=tokens.of_tokenizer(tokenizer),
    )  # fmt: skip


def open_mlx(folder: Path, name: str) -> Checkpoint:
    """Open a folder of mlx-whisper's, which has neither a tokenizer nor the encoder's positions."""
    path = file_in(folder, files.CONFIG_FILE)
    found = next((weights for weights in MLX_WEIGHTS if (folder / weights).exists()), MLX_WEIGHTS[0])
    weights = file_in(folder, found)
    tensors = dict(open_npz(weights) if weights.suffix == ".npz" else open_safetensors(weights))
    heads = tensors.pop(MLX_HEADS, None)
    quantization = read_json(path).get("quantization")
    return _checkpoint(
        MLX, path, tensors, name=name, weights=(weights,), quantization=quantization,
        heads=heads.read().tolist() if heads else None,
    )  # fmt: skip


def _unprefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def _checkpoint(
    layout: str,
    where: Path,
    tensors: dict[str, Tensor],
    *,
    name: str,
    weights: tuple[Path, ...],
    heads: object = None,
    quantization: object = None,
    vocabulary: Tables | None = None,
) -> Checkpoint:
    """Derive the configuration from the tensors; `heads` are pairs of a layer and a head, if they are known."""
    try:
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        encoder = WhisperEncoderConfig.of(shapes, "encoder.")
        decoder = WhisperDecoderConfig.of(shapes, "decoder.")
    except (KeyError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else "a tensor has another number of axes"
        raise ModelError(f"{weights[0]}: not a Whisper model: {what}", code="model-misfit") from error
    size = encoder.positions, encoder.width
    tensors.setdefault(POSITIONS, Tensor("float32", size, lambda: sinusoidal_positions(*size, 0)))
    words, special = vocabulary or tokens.bundled(decoder.vocab_size)
    with stated_in(str(where)):
        pairs: Any = heads or ()
        chosen = tuple(int(layer) * decoder.heads + int(head) for layer, head in pairs)
    is_english = decoder.vocab_size <= tokens.ENGLISH_VOCABULARY
    config = WhisperConfig(
        encoder,
        decoder,
        ("en",) if is_english else tuple(code for code, token in WHISPER_TOKEN_OF.items() if token in special),
        chosen or usual_heads(encoder, decoder, name),
    )
    check_config(config, str(where), misfits)
    return Checkpoint(
        layout=layout,
        config=config,
        dtype=usual_dtype(tensors),
        tensors=tensors,
        files={},
        texts={tokens.TOKENS_FILE: to_text(words, special)},
        quantization=quantize.from_json(quantization, f"{where}: quantization"),
        weights=weights,
    )
