"""Transformers' layout, as in ``FunAudioLLM/Fun-ASR-Nano-2512-hf``: safetensors, in one file or in shards.

Source: transformers ``models/fun_asr_nano`` (``FunAsrNanoForConditionalGeneration``). What differs: that port puts
all adaptor rows into the prompt, and its instruction is in English. The weights are upstream's, so this reader
uses upstream's low frame rate and prompt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import Spell
from funasr_cli.checkpoints.shards import open_weights, refuse_quantized
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in, read_json
from funasr_cli.checkpoints.values import Options, require, section, stated_in, value
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.fun_asr_nano.upstream import COMPONENTS, nano_config

LAYOUT = "Transformers"
FEATURES_FILES = ("processor_config.json", "preprocessor_config.json")  # since 5.0, the first includes the second
# Transformers' keys and defaults, by FunASR's keys. save_pretrained omits values that are defaults.
FEATURES = {
    "fs": ("sampling_rate", 16000), "window": ("window", "hamming"), "frame_length": ("frame_length", 25),
    "frame_shift": ("frame_shift", 10), "lfr_n": ("stride_lfr", 6),
}  # fmt: skip
INPUT = {"n_mels": ("num_mel_bins", 80), "lfr_m": ("num_stacked_frames", 7)}
ENCODER = {
    "output_size": ("hidden_size", 512), "attention_heads": ("num_attention_heads", 4),
    "linear_units": ("intermediate_size", 2048), "kernel_size": ("fsmn_kernel_size", 11),
}  # fmt: skip
ADAPTOR = {
    "ffn_dim": ("projector_hidden_size", 2048), "n_layer": ("num_hidden_layers", 2),
    "attention_heads": ("num_attention_heads", 8),
}  # fmt: skip
NOTE = "uses the low frame rate and the prompt of FunASR, from which these weights come, not those of Transformers"


def open_transformers(folder: Path, languages: tuple[str, ...]) -> Checkpoint:
    """Open a folder in this layout."""
    path = file_in(folder, files.CONFIG_FILE)
    content = read_json(path)
    refuse_quantized(content, path)
    with stated_in(str(path)):
        options, llm = _as_funasr(content, folder)
    config = nano_config(options, llm, ctc=False, languages=languages, where=str(path))
    weights, stored = open_weights(folder)
    spell = spelling(config.encoder.blocks, config.encoder.tp_blocks)
    tied = names.tied(config)
    tensors = keymap.translate(stored, names.TRANSFORMERS, str(folder), tied=tied, **spell)
    return Checkpoint(
        layout=LAYOUT,
        config=config,
        dtype=usual_dtype(tensors),
        tensors=tensors,
        files=files.tokenizer_files(folder, folder),
        weights=weights,
        notes=(NOTE,),
    )


def spelling(blocks: int, tp_blocks: int) -> dict[str, Spell]:
    """Map this layout's layer numbers, which are consecutive over all kinds of layers, to our names."""

    def block(number: int) -> str | None:
        if number == 0:
            return "encoders0.0"
        return f"encoders.{number - 1}" if number < blocks else f"tp_encoders.{number - blocks}"

    def last(number: int) -> str | None:
        return {blocks - 1: "after_norm", blocks + tp_blocks - 1: "tp_norm"}.get(number)

    return {"block": block, "last": last}


def _as_funasr(config: Options, folder: Path) -> tuple[Options, Options]:
    """Return the equivalent content of FunASR's ``config.yaml`` and of the decoder's ``config.json``."""
    audio, adaptor, llm = (section(config, name) for name in ("audio_config", "adaptor_config", "text_config"))
    features = _features(folder)
    for part in (audio, adaptor):
        require(part, "hidden_act", "relu", default="relu")
    require(adaptor, "projector_hidden_act", "relu", default="relu")
    layers, timed = value(audio, "num_hidden_layers", 70), value(audio, "num_timestamp_prediction_layers", 20)
    low_frame_rate = {"downsample_rate": 1, "use_low_frame_rate": True}
    yaml = COMPONENTS | {
        "frontend_conf": _renamed(features, FEATURES) | _renamed(audio, INPUT),
        "audio_encoder_conf": _renamed(audio, ENCODER) | {"num_blocks": layers - timed, "tp_blocks": timed},
        "audio_adaptor_conf": _renamed(adaptor, ADAPTOR) | low_frame_rate,
    }
    return yaml, _decoder(config, llm, folder)


def _renamed(stated: Mapping[str, Any], names: Mapping[str, tuple[str, Any]]) -> Options:
    return {funasr_key: stated.get(key, default) for funasr_key, (key, default) in names.items()}


def _decoder(config: Options, llm: Options, folder: Path) -> Options:
    """Return the decoder's configuration with its stop token, which may be in one of three places."""
    path = optional_file_in(folder, files.GENERATION_FILE)
    places = (llm, read_json(path) if path else {}, config)
    stop = next((place["eos_token_id"] for place in places if place.get("eos_token_id") is not None), None)
    if stop is None:
        hint = f"set eos_token_id in {files.GENERATION_FILE} to the id of <|im_end|> in {files.TOKENIZER_FILE}"
        message = f"{folder}: no stop token in {files.CONFIG_FILE} or {files.GENERATION_FILE}"
        raise ModelError(message, hint, code="model-config")
    llm = llm | {"eos_token_id": stop}
    return llm | {"tie_word_embeddings": llm.get("tie_word_embeddings", config.get("tie_word_embeddings", True))}


def _features(folder: Path) -> Mapping[str, Any]:
    """Return the settings of the feature extractor; empty if there are none."""
    for name in FEATURES_FILES:
        if path := optional_file_in(folder, name):
            content = read_json(path)
            with stated_in(str(path)):
                return section(content, "feature_extractor") or content
    return {}
