"""mlx-audio's layout, as in ``mlx-community/Fun-ASR-Nano-2512``: upstream's names, MLX's axes, perhaps quantized.

Source: mlx-audio 0.6 ``stt/models/fun_asr_nano`` (``convert.py``, ``config.py``).
"""

from pathlib import Path, PurePosixPath

from funasr_cli.checkpoints import keymap, quantize
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CONFIG_FILE, WEIGHTS_FILE, tokenizer_files
from funasr_cli.checkpoints.tensors import open_safetensors, usual_dtype
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, read_json, readable
from funasr_cli.checkpoints.values import Options, section, stated_in
from funasr_cli.errors import ModelError
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.fun_asr_nano.config import languages_of
from funasr_cli.families.fun_asr_nano.upstream import COMPONENTS, nano_config

LAYOUT = "mlx-audio"
NO_CTC = "the CTC branch is left out, since mlx-audio's layout has no vocabulary for it"
# Defaults of mlx-audio's classes for keys that are missing in config.json.
DEFAULTS: dict[str, Options] = {
    "frontend_conf": {"fs": 16000, "n_mels": 80, "lfr_m": 7, "lfr_n": 6},
    "audio_encoder_conf": {
        "output_size": 512, "attention_heads": 4, "linear_units": 2048, "num_blocks": 50, "tp_blocks": 20,
    },
    "audio_adaptor_conf": {"downsample_rate": 1, "use_low_frame_rate": True, "ffn_dim": 2048, "n_layer": 2},
}  # fmt: skip


def open_mlx_audio(folder: Path, name: str) -> Checkpoint:
    """Open a folder in this layout. ``model_repo`` in its ``config.json`` and its name determine the languages."""
    path = file_in(folder, CONFIG_FILE)
    content = read_json(path)
    with stated_in(str(path)):
        decoder = decoder_of(content)
        options = _as_funasr(content)
    repository = content.get("model_repo")
    # For any converted folder, mlx-audio writes Nano's id to model_repo, so the name is needed as well.
    languages = languages_of(f"{repository} {name}")
    config = nano_config(options, decoder, ctc=False, languages=languages, where=str(path))
    weights = file_in(folder, WEIGHTS_FILE, DAMAGED_HINT)
    stored = open_safetensors(weights)
    known = {name: tensor for name, tensor in stored.items() if not names.has_ctc([name])}
    tensors = keymap.translate(known, names.OURS, str(weights), tied=names.tied(config))
    return Checkpoint(
        layout=LAYOUT,
        config=config,
        dtype=usual_dtype(tensors),
        tensors=tensors,
        quantization=quantize.from_json(content.get("quantization"), f"{folder / CONFIG_FILE}: quantization"),
        files=tokenizer_files(folder, _tokenizer_folder(folder, content)),
        weights=(weights,),
        source={"source": readable(repository) if isinstance(repository, str) else None},
        notes=(NO_CTC,) if len(tensors) < len(stored) else (),
    )


def decoder_of(content: Options) -> Options:
    """Return the decoder's section of ``config.json``; empty if mlx-audio did not write the file."""
    return section(content, "text_config") or section(content, "llm_config")


def _as_funasr(content: Options) -> Options:
    """Return the equivalent content of FunASR's ``config.yaml``."""
    parts = {name: defaults | section(content, name) for name, defaults in DEFAULTS.items()}
    encoder = parts["audio_encoder_conf"]
    if "sanm_shift" in encoder:  # mlx-audio corrects upstream's spelling
        encoder["sanm_shfit"] = encoder.pop("sanm_shift")
    return COMPONENTS | parts


def _tokenizer_folder(folder: Path, content: Options) -> Path:
    stated = content.get("qwen_tokenizer_path", "Qwen3-0.6B")
    if not isinstance(stated, str) or not (name := PurePosixPath(stated).name) or name == "..":
        message = f"{folder / CONFIG_FILE}: qwen_tokenizer_path does not name the tokenizer's folder"
        raise ModelError(message, code="model-config")
    return folder / name
