"""Damaged checkpoints in each layout, with the expected error: its code and the values it names."""

from __future__ import annotations

import os
import re
import shutil
from itertools import pairwise
from typing import Any

import torch
from support.damage import (
    CONFIG,
    INDEX,
    SHARD,
    WEIGHTS,
    Call,
    Change,
    add_lora,
    cut,
    first_value,
    flip,
    header,
    index,
    link,
    pickle,
    put,
    remove,
    replace,
    state,
    state_yaml,
    tensor,
    tensors,
    tokenizer,
    two_tokens,
)
from support.small import edit_json
from tokenizers import models

MODEL_PT, YAML, TOKENIZER, QWEN = "model.pt", "config.yaml", "tokenizer.json", "Qwen3-0.6B"
QWEN_TOKENIZER, QWEN_CONFIG = f"{QWEN}/{TOKENIZER}", f"{QWEN}/{CONFIG}"
# One tensor under FunASR's name and under Transformers' name. It is among the last ones in both layouts.
BIAS, THEIR_BIAS = "audio_encoder.tp_norm.bias", "model.audio_tower.layers.2.final_layernorm.bias"
Q, K, V = (f"model.audio_tower.layers.0.self_attn.{letter}_proj.weight" for letter in "qkv")
QKV = "audio_encoder.encoders0.0.self_attn.linear_q_k_v.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
TAPS = "audio_encoder.encoders0.0.self_attn.fsmn_block.weight"
GATE = "llm.model.layers.0.mlp.gate_proj"

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
# A "billion laughs" file: each alias repeats the one before it ten times.
BOMB = "a: &a x\n" + "".join(f"{name}: &{name} [{10 * f'*{last}, '}]\n" for last, name in pairwise("abcdefghij"))
OTHER = b"encoder: SANMEncoder\nmodel: Transducer\nfrontend: WavFrontend\n"
NAN, INFINITE = first_value(float("nan")), first_value(float("-inf"))
BERTS = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
SYSTEM = f"{os.system.__module__}.system"

# Description, change, error code, values that the message names.
Row = tuple[Any, ...]


def rows(code: str, *cases: tuple[Any, ...]) -> list[Row]:
    """Return rows that all expect the same error code."""
    return [(what, change, code, *values) for what, change, *values in cases]


FUNASR: list[Row] = [
    *rows(
        "model-missing",
        ("no weights", remove(MODEL_PT), "model.pt", "config.yaml"),
        ("no configuration", remove(YAML), "config.yaml", "fine-tuned"),
        ("no tokenizer", remove(QWEN_TOKENIZER), QWEN_TOKENIZER),
        ("no decoder", lambda folder: shutil.rmtree(folder / QWEN), QWEN_CONFIG),
    ),
    *rows(
        "model-path",
        ("folder", replace(MODEL_PT, os.mkdir), MODEL_PT),
        ("pipe", replace(MODEL_PT, os.mkfifo), MODEL_PT),
        ("link out of the folder", link(MODEL_PT, "../model.pt"), MODEL_PT),
        ("path to the parent folder", state_yaml(llm_conf__init_param_path="Qwen3\\..\\.."),
         "'Qwen3\\\\..\\\\../config.json'"),
        ("decoder linked out of the folder", link(QWEN, f"../{QWEN}"), QWEN_CONFIG),
    ),
    *rows(
        "model-damaged",
        ("Git LFS pointer", put(MODEL_PT, POINTER), MODEL_PT, "git lfs pull"),
        ("HTML page", put(MODEL_PT, b"<html><body>404</body></html>"), MODEL_PT),
        ("truncated", cut(MODEL_PT, 20_000), MODEL_PT),
        ("flipped bit in the magic number", flip(MODEL_PT, 0), MODEL_PT),
        ("an optimizer", pickle({"optimizer": {"lr": 0.1}}), "'optimizer'"),
        ("not a number", tensor(BIAS, NAN, MODEL_PT), BIAS),
        ("sparse", tensor(BIAS, torch.Tensor.to_sparse, MODEL_PT), BIAS),
        ("meta", tensor(BIAS, lambda values: values.to("meta"), MODEL_PT), BIAS),
        ("large YAML", put(YAML, b"a: b\n" * 40_000), YAML, "200,000"),
        ("YAML tag", put(YAML, b"a: b\nmodel: !!python/object/apply:os.system ['touch executed']\n"),
         YAML, "line 2"),
        ("invalid JSON", put(QWEN_CONFIG, b"{"), QWEN_CONFIG),
        ("no tokens", put(QWEN_TOKENIZER, b'{"model": {"type": "BPE"}}'), QWEN_TOKENIZER),
    ),
    *rows(
        "model-unsafe",
        ("code", pickle({"state_dict": {"a": Call(os.system, "touch executed")}}), SYSTEM),
        ("code in the old format",
         pickle({"a": Call(os.system, "touch executed")}, _use_new_zipfile_serialization=False), SYSTEM),
        ("module", pickle(torch.nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
    ),
    *rows(
        "model-misfit",
        ("renamed", tensors(lambda found: found.update(offset=found.pop(BIAS)), MODEL_PT), BIAS, "offset"),
        ("reshaped", tensor("audio_adaptor.linear1.weight", lambda values: values.reshape(16, 64), MODEL_PT),
         "audio_adaptor.linear1.weight", "(16, 64)", "(32, 32)"),
        ("extra", tensors(lambda found: found.update({"vad.weight": torch.ones(2)}), MODEL_PT), "vad.weight (2,)"),
        ("integers", tensor(BIAS, torch.Tensor.long, MODEL_PT), BIAS, "int64"),
        ("half a CTC branch", tensors(lambda found: found.update({"ctc.ctc_lo.bias": torch.ones(3)}), MODEL_PT),
         "ctc_decoder."),
        ("missing bias", tensors(lambda found: found.pop(BIAS), MODEL_PT), "1 tensors", BIAS),
    ),
    *rows(
        "lora-unmerged",
        ("LoRA", add_lora("{}.lora_A", "{}.lora_B"), "8 tensors", "q_proj.lora_A", "W + B·A·alpha/r"),
        ("PEFT's names", add_lora("{}.lora_A.default.weight", "{}.lora_B.default.weight"), "lora_A.default"),
        ("names without an underscore", add_lora("{}.loraA", "{}.loraB.weight"), "8 tensors", "q_proj.loraA"),
        ("names of Diffusers", add_lora("{}.lora_down.weight", "{}.lora_up.weight"), "8 tensors", "lora_down"),
        ("only adapters", lambda folder: (
            add_lora("{}.lora_A", "{}.lora_B")(folder),
            tensors(lambda found: [found.pop(key) for key in list(found) if "lora_" not in key], MODEL_PT)(folder),
        ), "lora_A"),
    ),
    *rows(
        "model-unsupported",
        ("another class", put(YAML, OTHER), "'Transducer'"),
        ("aliases", put(YAML, BOMB.encode()), YAML, "None"),
        ("an alias for the model", put(YAML, (BOMB + "model: *j\n").encode()), YAML),
        ("a tokenizer of another kind", tokenizer(QWEN_TOKENIZER, BERTS), "'WordPiece'"),
        ("a decoder of another kind", put(QWEN_CONFIG, b'{"model_type": "llama"}'), "'llama'"),
    ),
    *rows(
        "model-config",
        ("YAML list", put(YAML, b"- a\n"), YAML),
        ("no path", put(YAML, b"model: FunASRNano\n"), "llm_conf.init_param_path"),
    ),
    ("another tokenizer", two_tokens(QWEN_TOKENIZER), "tokenizer-mismatch", QWEN_TOKENIZER, "<|im_start|>"),
]  # fmt: skip

TRANSFORMERS: list[Row] = [
    *rows(
        "model-damaged",
        ("half of the file", cut(WEIGHTS, 100_000), WEIGHTS),
        ("one byte too short", cut(WEIGHTS, -1), WEIGHTS),
        ("a huge header", put(WEIGHTS, (1 << 60).to_bytes(8, "little") + b"{}"), WEIGHTS),
        ("a deep header", put(WEIGHTS, (1 << 20).to_bytes(8, "little") + b'{"a":' * (1 << 18)), WEIGHTS),
        ("flipped bit in the header", flip(WEIGHTS, 8), WEIGHTS),
        ("one byte too long", lambda folder: put(WEIGHTS, (folder / WEIGHTS).read_bytes() + b"x")(folder),
         WEIGHTS),
        ("overlap", header(lambda found: found[THEIR_BIAS].update(data_offsets=[0, 128])), WEIGHTS),
        ("absurd shape", header(lambda found: found[THEIR_BIAS].update(shape=[1 << 40, 1 << 40])), WEIGHTS),
        ("unknown type", header(lambda found: found[THEIR_BIAS].update(dtype="F9")), WEIGHTS),
        ("a name with a bell", header(lambda found: found.update({"a\a": found.pop(THEIR_BIAS)})), r"'a\x07'"),
        ("not a number", tensor(EMBEDDING, NAN), "llm.model.embed_tokens.weight"),
        ("Git LFS pointer", put(WEIGHTS, POINTER), WEIGHTS, "git lfs pull"),
        ("deep JSON", put(CONFIG, b'{"a":' * 100_000), CONFIG),
        ("large JSON", put(CONFIG, b" " * (1 << 21)), CONFIG, "2,097,152"),
    ),
    ("missing", remove(WEIGHTS), "model-missing", WEIGHTS),
    *rows(
        "model-misfit",
        ("integers", tensor(THEIR_BIAS, torch.Tensor.long), BIAS, "I64"),
        ("renamed", tensors(lambda found: found.update(offset=found.pop(THEIR_BIAS))), BIAS, "offset"),
        ("two tensors with one name", tensors(lambda found: found.update({BIAS: torch.ones(32)})), BIAS),
        ("missing k", tensors(lambda found: found.pop(K)), QKV, "part k"),
        ("narrow v", tensor(V, lambda values: values[:, :100]), QKV),
        ("another type of k", tensor(K, torch.Tensor.half), QKV),
        ("short q", tensor(Q, lambda values: values[:16]), QKV, "(80, 560)", "(96, 560)"),
        ("another head", tensors(lambda found: found.update({"lm_head.weight": 1 + found[EMBEDDING]})),
         "llm.lm_head.weight", "tie_word_embeddings"),
        ("no head", state(tie_word_embeddings=False, text_config__tie_word_embeddings=False),
         "llm.lm_head.weight (768, 64)"),
    ),
    *rows(
        "model-unsupported",
        ("another model", put(CONFIG, b'{"model_type": "wav2vec2", "d_model": 384}'), "'wav2vec2'"),
        ("no configuration", remove(CONFIG)),
        ("quantized", state(quantization_config={"quant_method": "bitsandbytes"}), CONFIG),
        ("another activation", state(audio_config__hidden_act="gelu"), "'gelu'"),
    ),
    *rows(
        "model-config",
        ("absurd width", state(text_config__hidden_size=10**9), "llm.hidden_size is 1000000000"),
        ("number instead of an object", state(audio_config=3), "audio_config"),
        ("a huge number", state(text_config__hidden_size=10**4000), "hidden_size"),
    ),
    ("LoRA", tensors(lambda found: found.update({f"{EMBEDDING}.lora_A.weight": torch.ones(1)})), "lora-unmerged"),
    ("ids beyond the decoder's", lambda folder: edit_json(
        folder / TOKENIZER, lambda content: content["model"]["vocab"].update(extra=2000)
    ), "tokenizer-mismatch", TOKENIZER, "2000", "768"),
]  # fmt: skip

SHARDS: list[Row] = [
    ("missing shard", remove(SHARD("00002")), "model-missing", SHARD("00002")),
    *rows(
        "model-path",
        ("shard linked out of the folder", link(SHARD("00001"), "../stolen"), SHARD("00001")),
        ("path to the parent folder", index(lambda places: places.update(a="../secret")), "'../secret'"),
    ),
    *rows(
        "model-damaged",
        ("shard stored twice", lambda folder: shutil.copyfile(folder / SHARD("00001"), folder / SHARD("00002")),
         SHARD("00002")),
        ("truncated shard", cut(SHARD("00003"), -4), SHARD("00003")),
        ("empty index", index(dict.clear), INDEX),
        ("missing tensor", index(lambda places: places.pop(THEIR_BIAS)), INDEX, repr(THEIR_BIAS)),
        ("extra tensor", index(lambda places: places.update(a=SHARD("00001"))), INDEX, "'a'"),
        ("tensor in another shard", index(lambda places: places.update({Q: SHARD("00003"), K: SHARD("00003")})),
         INDEX),
    ),
]  # fmt: skip

MLX_AUDIO: list[Row] = [
    *rows(
        "model-damaged",
        ("truncated", cut(WEIGHTS, -100), WEIGHTS),
        ("infinite in float16", tensor(f"{GATE}.weight", lambda values: 1e6 * values.half()), f"{GATE}.weight"),
    ),
    ("link out of the folder", link(WEIGHTS, "/etc/passwd"), "model-path", WEIGHTS),
    ("PyTorch's axes", tensor(TAPS, lambda values: values.transpose(-1, -2)), "model-misfit", TAPS, "(32, 1, 11)"),
    ("another folder", state(qwen_tokenizer_path="/etc/Other"), "model-missing", f"Other/{TOKENIZER}"),
    ("another tokenizer", two_tokens(QWEN_TOKENIZER), "tokenizer-mismatch", QWEN_TOKENIZER),
    ("quantized", state(quantization={"bits": 4, "group_size": 64}), "model-quantized", WEIGHTS),
    *rows(
        "model-config",
        ("path to the parent folder", state(qwen_tokenizer_path=".."), "qwen_tokenizer_path"),
        ("no width", state(audio_encoder_conf__output_size=0), "encoder.width is 0"),
    ),
    *rows(
        "model-unsupported",
        ("no decoder", state(text_config=None), CONFIG),
        ("another model", state(model_type="sensevoice"), "'sensevoice'"),
        ("7 bits", state(quantization={"bits": 7, "group_size": 64}), "7 bits"),
        ("another mode", state(quantization={"bits": 4, "group_size": 32, "mode": "mxfp4"}), "'mxfp4'"),
    ),
]  # fmt: skip

OURS: list[Row] = [
    ("newer", state(format_version=2), "model-unsupported", "version is 2"),
    ("missing field", state(encoder__blocks=None), "model-config", "'blocks'"),
    ("truncated", cut(WEIGHTS, -1), "model-damaged", WEIGHTS),
    ("missing tensor", tensors(lambda found: found.pop(BIAS)), "model-misfit", BIAS),
    ("not a number", tensor(BIAS, NAN), "model-damaged", BIAS),
]

LAYOUTS = {"FunASR": FUNASR, "Transformers": TRANSFORMERS, "shards": SHARDS, "mlx-audio": MLX_AUDIO, "ours": OURS}


def unlist(name: str) -> Change:
    """Remove a line from the list of digests."""

    def change(folder: Any) -> None:
        path = folder / "SHA256SUMS"
        kept, found = re.subn(rf"^\w+  {re.escape(name)}\n", "", path.read_text(), flags=re.MULTILINE)
        assert found == 1
        path.write_text(kept)

    return change


CHECKS: list[Row] = [  # on our own, quantized model: the values in each line of the message
    ("flipped bit in a value", flip(WEIGHTS, -1), f"{WEIGHTS}: "),
    ("not a number", tensor(BIAS, NAN), f"{WEIGHTS}: ", f"{BIAS}: "),
    ("extra space", lambda folder: put(TOKENIZER, (folder / TOKENIZER).read_bytes() + b" ")(folder), TOKENIZER),
    ("another tokenizer", two_tokens(TOKENIZER), "<|im_start|>", "<|im_end|>", "token 688", f"{TOKENIZER}: "),
    ("missing file", remove("merges.txt"), "merges.txt: SHA256SUMS"),
    ("no digests", put("SHA256SUMS", b"none\n"), "SHA256SUMS: "),
    ("an empty list", put("SHA256SUMS", b""), "SHA256SUMS: "),
    ("no list", remove("SHA256SUMS"), *(f"{name}: SHA256SUMS" for name in (WEIGHTS, CONFIG, TOKENIZER))),
    ("list without the weights", unlist(WEIGHTS), f"{WEIGHTS}: SHA256SUMS"),
    ("a list without a configuration", unlist(CONFIG), f"{CONFIG}: SHA256SUMS"),
    ("a list without the tokenizer", unlist(TOKENIZER), f"{TOKENIZER}: SHA256SUMS"),
    ("no model card", remove("README.md"), "README.md: SHA256SUMS"),
    ("digest of another file", put("SHA256SUMS", f"{64 * '0'}  ../secret\n".encode()), "'../secret'"),
    ("pipe", replace("merges.txt", os.mkfifo), "merges.txt: "),
    ("no scales", tensors(lambda found: found.pop(f"{GATE}.scales")), f"{GATE}.biases", f"{GATE}.weight"),
    ("truncated header", cut(WEIGHTS, 1000), f"{WEIGHTS}: "),
]
