"""Write one random checkpoint in every layout, and the clips."""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
import yaml

import funasr_cli
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.benchmarks.subjects import generated_clip
from funasr_cli.benchmarks.synthetic import write_synthetic
from funasr_cli.checkpoints.format import WEIGHTS_FILE
from funasr_cli.checkpoints.funasr import UPSTREAM_CONFIG
from funasr_cli.families.fun_asr_nano.upstream import LLM_FOLDER
from tools.export import export

OURS, FUNASR, MLX_AUDIO, CRISPASR = "ours", "funasr", "mlx-audio", "crispasr"
OURS_IN_4_BITS = "ours-4-bits"


def write_checkpoint(state: Path, size: str) -> Path:
    """Write the same weights in the layout of each program, and return the folder; reuse it if it exists.

    Args:
        state: the folder to write to.
        size: size of the model, as for `write_synthetic`.

    Raises:
        OutputError: there is not enough disk space.
        SetupError: torch is not installed.
    """
    folder = state / f"checkpoint-{size}"
    if folder.is_dir():
        return folder
    unfinished = state / f"checkpoint-{size}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_synthetic(unfinished, size).rename(unfinished / OURS)
    export(unfinished / OURS, unfinished / FUNASR)
    _write_tokenizer_config(unfinished / FUNASR / LLM_FOLDER)
    _write_mlx_audio(unfinished)
    unfinished.rename(folder)
    return folder


def write_in_4_bits(checkpoint: Path) -> None:
    """Convert our model to one with 4 bits; reuse it if it exists."""
    if not (checkpoint / OURS_IN_4_BITS).is_dir():
        funasr_cli.convert(checkpoint / OURS, checkpoint / OURS_IN_4_BITS, quantize="4", verify="off")


def _write_tokenizer_config(llm: Path) -> None:
    """Write the file that transformers needs to read tokenizer.json unchanged."""
    stop = json.loads((llm / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    tokens = json.loads((llm / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    eos = next(token["content"] for token in tokens if token["id"] == stop)
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "pad_token": "<|endoftext|>"}
    (llm / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")


def _write_mlx_audio(folder: Path) -> None:
    """Write what mlx-audio's converter would write; its names and axes are the same as ours."""
    upstream, out = folder / FUNASR, folder / MLX_AUDIO
    shutil.copytree(upstream / LLM_FOLDER, out / LLM_FOLDER)
    (out / WEIGHTS_FILE).symlink_to(Path("..") / OURS / WEIGHTS_FILE)
    options = yaml.safe_load((upstream / UPSTREAM_CONFIG).read_text(encoding="utf-8"))
    frontend = options["frontend_conf"]
    config = {
        "model_type": "fun_asr_nano",
        "input_size": frontend["n_mels"] * frontend["lfr_m"],
        "qwen_tokenizer_path": LLM_FOLDER,
        "text_config": json.loads((upstream / LLM_FOLDER / "config.json").read_text(encoding="utf-8")),
    }
    config |= {name: options[name] for name in ("frontend_conf", "audio_encoder_conf", "audio_adaptor_conf")}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_clips(folder: Path, count: int, duration_s: float) -> list[Path]:
    """Write different clips of one length as 16-bit WAV at 16 kHz, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = generated_clip(count * duration_s).samples  # (samples,)
    paths = []
    for index, clip in enumerate(np.split(samples, count)):
        paths.append(folder / f"{index:02}-{duration_s:g}s.wav")
        soundfile.write(paths[-1], clip, SAMPLE_RATE_HZ)
    return paths
