"""Write a checkpoint in other programs' layouts with their own code: COMMAND ARGUMENT...; see `parity.layouts`.

Runs in the environment of the reference, without this package.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

WORKERS = Path(__file__).parents[3] / "tools/peers/workers"
sys.path.insert(0, str(WORKERS))

from transformers_port import port_config, port_tensors  # noqa: E402


def write_transformers(checkpoint: Path, out: Path, max_shard_size: str) -> None:
    """Fill Transformers' class with an upstream checkpoint, then save it and its tokenizer."""
    from transformers import AutoTokenizer, FunAsrNanoConfig, FunAsrNanoForConditionalGeneration

    options, llm = read_configuration(checkpoint)
    [tensors] = torch.load(checkpoint / "model.pt").values()
    model, report = FunAsrNanoForConditionalGeneration.from_pretrained(
        None,
        config=FunAsrNanoConfig(**port_config(options, json.loads((llm / "config.json").read_text()))),
        state_dict=port_tensors(tensors, options["audio_encoder_conf"]),
        dtype=next(iter(tensors.values())).dtype,
        output_loading_info=True,
    )
    if any(report.values()):
        raise ValueError(f"the checkpoint does not fit: {report}")
    model.save_pretrained(out, max_shard_size=max_shard_size)
    AutoTokenizer.from_pretrained(llm).save_pretrained(out)


def write_mlx_audio(checkpoint: Path, out: Path) -> None:
    """Run mlx-audio's converter for this model, which assumes the release's sizes."""
    from mlx_audio.stt.models.fun_asr_nano.convert import convert

    convert(checkpoint, out, dtype="bfloat16")


def quantize_mlx_audio(folder: Path, out: Path, recipe: str) -> None:
    """Quantize a folder in mlx-audio's layout with mlx-audio: a number of bits, or one of its mixed recipes."""
    from mlx_audio.convert import convert

    how = {"q_bits": int(recipe)} if recipe.isdigit() else {"quant_predicate": recipe}
    convert(str(folder), str(out), quantize=True, model_domain="stt", **how)


def write_shapes(checkpoint: Path, out: Path) -> None:
    """Write names and shapes of FunASR's and Transformers' own classes for a checkpoint's configuration, as JSON.

    The checkpoint needs no weights.
    """
    from funasr.models.fun_asr_nano.model import FunASRNano
    from transformers import FunAsrNanoConfig, FunAsrNanoForConditionalGeneration

    options, llm = read_configuration(checkpoint)
    port = FunAsrNanoConfig(**port_config(options, json.loads((llm / "config.json").read_text())))
    options["llm_conf"]["init_param_path"] = str(llm)
    options["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = str(checkpoint / "multilingual.tiktoken")
    frontend = options["frontend_conf"]
    with torch.device("meta"):
        upstream = FunASRNano(**options, input_size=frontend["n_mels"] * frontend["lfr_m"])
        ported = FunAsrNanoForConditionalGeneration(port)
    # Upstream's state dict contains a tied head twice; save_pretrained, like named_parameters, only once.
    tensors = {"FunASR": upstream.state_dict(), "Transformers": dict(ported.named_parameters())}
    shapes = {layout: {name: list(found[name].shape) for name in found} for layout, found in tensors.items()}
    out.write_text(json.dumps(shapes), encoding="utf-8")


def read_configuration(checkpoint: Path) -> tuple[dict[str, Any], Path]:
    """Return the content of ``config.yaml``, and the decoder's folder."""
    options = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
    return options, checkpoint / options["llm_conf"]["init_param_path"]


COMMANDS = {
    command.__name__: command
    for command in (write_transformers, write_mlx_audio, quantize_mlx_audio, write_shapes)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("more", nargs="*")
    arguments = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        COMMANDS[arguments.command](arguments.source, arguments.out, *arguments.more)
