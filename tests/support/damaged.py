"""What is done to a checkpoint in each layout, and what `funasr convert` says then."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import torch
from support.damage import (
    CONFIG,
    INDEX,
    SHARD,
    WEIGHTS,
    Call,
    Change,
    cut,
    entry,
    first_value,
    flip,
    header,
    index,
    link,
    more_tokens,
    only_weights,
    pickle,
    put,
    remove,
    replace_by_folder,
    replace_by_pipe,
    state,
    state_yaml,
    tensor,
    tensors,
    two_tokens,
    word_pieces,
)
from test_cli_input_errors import LIBRARY

MODEL_PT, YAML, TOKENIZER, QWEN = "model.pt", "config.yaml", "tokenizer.json", "Qwen3-0.6B"
# One tensor in the words of FunASR and in those of transformers; in either layout it is among the last.
BIAS, THEIR_BIAS = "audio_encoder.tp_norm.bias", "model.audio_tower.layers.2.final_layernorm.bias"
Q, K, V = (f"model.audio_tower.layers.0.self_attn.{letter}_proj.weight" for letter in "qkv")
QKV = "audio_encoder.encoders0.0.self_attn.linear_q_k_v.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
TAPS = "audio_encoder.encoders0.0.self_attn.fsmn_block.weight"
GATE = "llm.model.layers.0.mlp.gate_proj"

AGAIN = "copy or download it again"
ITSELF = "put the file itself there"
CODE = "only plain state dicts are read; nothing in a checkpoint is ever executed"
NO_CHECKPOINT = f"not a PyTorch checkpoint, or damaged ({LIBRARY})"
LFS, PULL = "a pointer of git-lfs, not the file itself", "run: git lfs pull"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
OUTSIDE = "a link that leads out of the folder"
KNOWN = "funasr convert --explain lists the layouts that are known"
SAYS = "the configuration says"
MISFIT = "the checkpoint is incomplete, or its configuration belongs to another one"
NO_NUMBERS = "has values that are no numbers"
FLOATING = "float32 or bfloat16 or float16"
DENSE = "is quantized, its dense weights are gone"
INSTEAD = "transcribe reads it as it is; to change the recipe, convert what it was made from"
OWN = "copy it from the decoder's own repository"
# Ten times itself, and again, and again: a billion.
BOMB = "a: &a x\n" + "".join(f"{name}: &{name} [{10 * f'*{last}, '}]\n" for last, name in pairwise("abcdefghij"))
SENSE_VOICE = b"encoder: SenseVoiceEncoderSmall\nmodel: SenseVoiceSmall\nfrontend: WavFrontend\n"
PARAFORMER = b"model: Paraformer\nencoder: SANMEncoder\npredictor: CifPredictorV2\n"


def misfits(*lines: str) -> str:
    return "\n  ".join([f"{len(lines)} tensors do not fit the configuration", *lines])


# What it is; how to do it; what is said, behind "Nano", and what to do.
Row = tuple[str, Change, str, str]

FUNASR: list[Row] = [
    ("a folder", replace_by_folder(MODEL_PT), "/model.pt: not a file", ""),
    ("a pipe", replace_by_pipe(MODEL_PT), "/model.pt: not a file", ""),
    ("elsewhere", link(MODEL_PT, "../model.pt"), f"/model.pt: {OUTSIDE}", ITSELF),
    ("a bit of its magic", flip(MODEL_PT, 0), f"/model.pt: {NO_CHECKPOINT}", AGAIN),
    ("code in the old format",
     pickle({"model": {"a": Call(os.system, "touch executed")}}, _use_new_zipfile_serialization=False),
     f"/model.pt: refused, it asks for {os.system.__module__}.system, which is not a tensor", CODE),
    ("eval", pickle({"state_dict": {"a": Call(eval, "open('executed', 'w')")}}),
     "/model.pt: refused, it asks for builtins.eval, which is not a tensor", CODE),
    ("an optimizer", pickle({"optimizer": {"lr": 0.1}}),
     "/model.pt: not a state dict ('optimizer' is a dict)", ""),
    ("renamed", tensors(lambda found: found.update(offset=found.pop(BIAS)), MODEL_PT),
     f"/model.pt: {misfits(f'missing: {BIAS} (32,)', 'unexpected: offset (32,)')}", MISFIT),
    ("reshaped", tensor("audio_adaptor.linear1.weight", lambda values: values.reshape(16, 64), MODEL_PT),
     f"/model.pt: {misfits(f'misshapen: audio_adaptor.linear1.weight is (16, 64), {SAYS} (32, 32)')}", MISFIT),
    ("extra", tensors(lambda found: found.update({"vad.weight": torch.ones(2)}), MODEL_PT),
     f"/model.pt: {misfits('unexpected: vad.weight (2,)')}", MISFIT),
    ("not a number", tensor(BIAS, first_value(float("nan")), MODEL_PT),
     f"/model.pt: {BIAS} {NO_NUMBERS}", "it is damaged"),
    ("infinite in float16", tensor(BIAS, lambda values: 1e6 * values.half(), MODEL_PT),
     f"/model.pt: {BIAS} {NO_NUMBERS}", "it is damaged"),
    ("aliases", put(YAML, BOMB.encode()),
     "/config.yaml: cannot be read (anchors and aliases are not read, line 1)", ""),
    ("a tag", put(YAML, b"a: b\nmodel: !!python/object/apply:os.system ['touch executed']\n"),
     "/config.yaml: cannot be read (tags are not read, line 2)", ""),
    ("deep YAML", put(YAML, b"{a: " * 100),
     "/config.yaml: cannot be read (nested deeper than 32 levels, line 1)", ""),
    ("large YAML", put(YAML, b"a: b\n" * 20_000),
     "/config.yaml: 100,000 bytes, more than the 65,536 read of such a file", ""),
    ("SenseVoice", put(YAML, SENSE_VOICE), "/config.yaml: model is 'SenseVoiceSmall': not supported",
     "this version knows 'FunASRNano'"),
    ("Paraformer", put(YAML, PARAFORMER), "/config.yaml: model is 'Paraformer': not supported",
     "this version knows 'FunASRNano'"),
    ("a YAML pipe", replace_by_pipe(YAML), "/config.yaml: not a file", ""),
    ("a way up", state_yaml(llm_conf__init_param_path="Qwen3\\..\\.."),
     ": 'Qwen3\\\\..\\\\../config.json' is not the name of a file in it", ""),
    ("decoder elsewhere", link(QWEN, f"../{QWEN}"), f"/{QWEN}/config.json: {OUTSIDE}", ITSELF),
    ("tokenizer elsewhere", link(f"{QWEN}/{TOKENIZER}", f"../../{TOKENIZER}"), f"/{QWEN}/{TOKENIZER}: {OUTSIDE}",
     ITSELF),
    ("another tokenizer", two_tokens(f"{QWEN}/{TOKENIZER}"), f"/{QWEN}/{TOKENIZER}: has no token <|im_start|>",
     "it is another model's"),
    ("a tokenizer of another kind", word_pieces(f"{QWEN}/{TOKENIZER}"),
     f"/{QWEN}/{TOKENIZER}: unlike Qwen's tokenizer: model 'WordPiece'", "copy the tokenizer of Qwen3"),
]  # fmt: skip

TRANSFORMERS: list[Row] = [
    ("cut in half", cut(WEIGHTS, 100_000), f"/{WEIGHTS}: cut short: 100,000 bytes of {LIBRARY}", AGAIN),
    ("a byte less", cut(WEIGHTS, -1), f"/{WEIGHTS}: cut short: {LIBRARY}", AGAIN),
    ("cut in its length", cut(WEIGHTS, 5), f"/{WEIGHTS}: not a safetensors file, or cut short", AGAIN),
    ("nothing", put(WEIGHTS, b""), f"/{WEIGHTS}: empty", AGAIN),
    ("missing", remove(WEIGHTS), f"/{WEIGHTS}: missing", AGAIN),
    ("a huge header", put(WEIGHTS, (1 << 60).to_bytes(8, "little") + b"{}"),
     f"/{WEIGHTS}: not a safetensors file, or cut short", AGAIN),
    ("a large header", put(WEIGHTS, (1 << 25).to_bytes(8, "little") + bytes(1 << 25)),
     f"/{WEIGHTS}: a header of 33,554,432 bytes, more than 16,777,216", ""),
    ("a bit of the header", flip(WEIGHTS, 8), f"/{WEIGHTS}: the header: cannot be read ({LIBRARY})", ""),
    ("a bit of its length", flip(WEIGHTS, 0), f"/{WEIGHTS}: the header: cannot be read ({LIBRARY})", ""),
    ("a byte more", lambda folder: put(WEIGHTS, (folder / WEIGHTS).read_bytes() + b"x")(folder),
     f"/{WEIGHTS}: 1 bytes behind the last tensor", AGAIN),
    ("overlap", entry(THEIR_BIAS, data_offsets=[0, 128]), f"/{WEIGHTS}: {LIBRARY} overlaps the tensor before it",
     AGAIN),
    ("a gap", entry(THEIR_BIAS, data_offsets=[10**9, 10**9 + 128]),
     f"/{WEIGHTS}: {LIBRARY} leaves a gap before it", AGAIN),
    ("absurd shape", entry(THEIR_BIAS, shape=[1 << 40, 1 << 40]),
     f"/{WEIGHTS}: {THEIR_BIAS} of shape (1099511627776, 1099511627776) in F32 takes 128 bytes", AGAIN),
    ("unknown type", entry(THEIR_BIAS, dtype="F8_E4M3"),
     f"/{WEIGHTS}: {THEIR_BIAS} is of type 'F8_E4M3', not one of {LIBRARY}", AGAIN),
    ("a name with a bell", header(lambda found: found.update({"a\a": found.pop(THEIR_BIAS)})),
     f"/{WEIGHTS}: 'a\\x07' is no name of a tensor", AGAIN),
    ("integers", tensor(THEIR_BIAS, torch.Tensor.long), f"/{WEIGHTS}: {BIAS} is of type I64, not {FLOATING}", ""),
    ("doubles", tensor(THEIR_BIAS, torch.Tensor.double), f"/{WEIGHTS}: {BIAS} is of type F64, not {FLOATING}", ""),
    ("not a number", tensor(EMBEDDING, first_value(float("nan"))),
     f"/{WEIGHTS}: llm.model.embed_tokens.weight {NO_NUMBERS}", "it is damaged"),
    ("infinite", tensor(THEIR_BIAS, first_value(float("-inf"))), f"/{WEIGHTS}: {BIAS} {NO_NUMBERS}",
     "it is damaged"),
    ("renamed", tensors(lambda found: found.update(offset=found.pop(THEIR_BIAS))),
     f"/{WEIGHTS}: {misfits(f'missing: {BIAS} (32,)', 'unexpected: offset (32,)')}", MISFIT),
    ("two of one name", tensors(lambda found: found.update({BIAS: torch.ones(32)})),
     f": two tensors would be {BIAS}, {LIBRARY} is one of them", ""),
    ("no k", tensors(lambda found: found.pop(K)), f": of {QKV}, the part k is missing", "it is incomplete"),
    ("narrow v", tensor(V, lambda values: values[:, :100]),
     f": the parts q, k and v of {QKV} differ in type or width", ""),
    ("another type of k", tensor(K, torch.Tensor.half), f": the parts q, k and v of {QKV} differ in type or width",
     ""),
    ("short q", tensor(Q, lambda values: values[:16]),
     f"/{WEIGHTS}: {misfits(f'misshapen: {QKV} is (80, 560), the configuration says (96, 560)')}", MISFIT),
    ("another head", tensors(lambda found: found.update({"lm_head.weight": 1 + found[EMBEDDING]})),
     ": the configuration ties llm.lm_head.weight to llm.model.embed_tokens.weight, but they differ",
     "set tie_word_embeddings in the decoder's config.json to false if the head was trained on its own"),
    ("no head", state(tie_word_embeddings=False, text_config__tie_word_embeddings=False),
     f"/{WEIGHTS}: {misfits('missing: llm.lm_head.weight (768, 64)')}", MISFIT),
    ("pointer", put(WEIGHTS, POINTER), f"/{WEIGHTS}: {LFS}", PULL),
    ("pointer for the configuration", put(CONFIG, POINTER), f"/{CONFIG}: {LFS}", PULL),
    ("pointer for the tokenizer", put(TOKENIZER, POINTER), f"/{TOKENIZER}: {LFS}", PULL),
    ("Whisper", only_weights({"model_type": "whisper", "d_model": 384}),
     f"/{CONFIG}: the model is 'whisper', not fun_asr_nano", KNOWN),
    ("Qwen3", only_weights({"model_type": "qwen3", "hidden_size": 64}),
     f"/{CONFIG}: the model is 'qwen3', not fun_asr_nano", KNOWN),
    ("no configuration", remove(CONFIG), ": no checkpoint in a layout that is known", KNOWN),
    ("one key twice", put(CONFIG, b'{"model_type": "a", "model_type": "b"}'),
     f"/{CONFIG}: cannot be read ('model_type' stands twice in one object)", ""),
    ("deep JSON", put(CONFIG, b'{"a":' * 100 + b"1" + b"}" * 100), f"/{CONFIG}: nested deeper than 32 levels", ""),
    ("large JSON", put(CONFIG, b" " * (1 << 21)),
     f"/{CONFIG}: 2,097,152 bytes, more than the 1,048,576 read of such a file", ""),
    ("absurd width", state(text_config__hidden_size=10**9),
     f"/{CONFIG}: adaptor.output_dim is 1000000000; llm.hidden_size is 1000000000", ""),
    ("absurd depth", state(audio_config__num_hidden_layers=10**9), f"/{CONFIG}: encoder.blocks is 999999999", ""),
    ("negative depth", state(audio_config__num_timestamp_prediction_layers=4), f"/{CONFIG}: encoder.blocks is -1",
     ""),
    ("no object", state(audio_config=3), f"/{CONFIG}: audio_config is not a mapping", ""),
    ("quantized", state(quantization_config={"quant_method": "bitsandbytes"}),
     f"/{CONFIG}: quantized for PyTorch, which is not read", "convert its source"),
    ("no tokenizer", remove(TOKENIZER), f"/{TOKENIZER}: missing", OWN),
    ("more tokens", more_tokens(TOKENIZER), f"/{TOKENIZER}: not every id is below the decoder's 768",
     "it is another model's"),
]  # fmt: skip

SHARDS: list[Row] = [
    ("one missing", remove(SHARD("00002")), f"/{SHARD('00002')}: missing", AGAIN),
    ("one twice", lambda folder: shutil.copyfile(folder / SHARD("00001"), folder / SHARD("00002")),
     f"/{SHARD('00002')}: {LIBRARY} is in another shard, too", AGAIN),
    ("one cut", cut(SHARD("00003"), -4), f"/{SHARD('00003')}: cut short: {LIBRARY}", AGAIN),
    ("one elsewhere", link(SHARD("00001"), "../stolen"), f"/{SHARD('00001')}: {OUTSIDE}", ITSELF),
    ("a way up", index(lambda places: places.update(a="../secret")),
     ": '../secret' is not the name of a file in it", ""),
    ("absolute", index(lambda places: places.update(a="/etc/passwd")),
     ": '/etc/passwd' is not the name of a file in it", ""),
    ("further down", index(lambda places: places.update(a="a/b")), f"/{INDEX}: 'a/b' is not beside it", ""),
    ("empty index", index(dict.clear), f"/{INDEX}: weight_map is not an object of file names", ""),
    ("numbers", index(lambda places: places.update(a=1)),
     f"/{INDEX}: weight_map is not an object of file names", ""),
    ("index cut", cut(INDEX, -10), f"/{INDEX}: cannot be read ({LIBRARY})", ""),
    ("a tensor too few", index(lambda places: places.pop(THEIR_BIAS)),
     f"/{INDEX}: does not say where {THEIR_BIAS!r} is", AGAIN),
    ("a tensor too many", index(lambda places: places.update(a=SHARD("00001"))),
     f"/{INDEX}: does not say where 'a' is", AGAIN),
    ("a tensor elsewhere", index(lambda places: places.update({Q: SHARD("00003"), K: SHARD("00003")})),
     f"/{INDEX}: does not say where {LIBRARY} is", AGAIN),
]  # fmt: skip

MLX_AUDIO: list[Row] = [
    ("cut", cut(WEIGHTS, -100), f"/{WEIGHTS}: cut short: {LIBRARY}", AGAIN),
    ("elsewhere", link(WEIGHTS, "/etc/passwd"), f"/{WEIGHTS}: {OUTSIDE}", ITSELF),
    ("PyTorch's axes", tensor(TAPS, lambda values: values.transpose(-1, -2)),
     f"/{WEIGHTS}: {misfits(f'misshapen: {TAPS} is (32, 1, 11), the configuration says (32, 11, 1)')}", MISFIT),
    ("infinite in float16", tensor(f"{GATE}.weight", lambda values: 1e6 * values.half()),
     f"/{WEIGHTS}: {GATE}.weight {NO_NUMBERS}", "it is damaged"),
    ("integers", tensor(BIAS, torch.Tensor.int), f"/{WEIGHTS}: {BIAS} is of type I32, not {FLOATING}", ""),
    ("a way up", state(qwen_tokenizer_path=".."),
     f"/{CONFIG}: qwen_tokenizer_path does not name the tokenizer's folder", ""),
    ("another folder", state(qwen_tokenizer_path="/etc/Other"), f"/Other/{TOKENIZER}: missing", OWN),
    ("another tokenizer", two_tokens(f"{QWEN}/{TOKENIZER}"), f"/{QWEN}/{TOKENIZER}: has no token <|im_start|>",
     "it is another model's"),
    ("no decoder", state(text_config=None), f"/{CONFIG}: neither funasr nor mlx-audio has converted this",
     "convert its source"),
    ("another model", state(model_type="sensevoice"), f"/{CONFIG}: the model is 'sensevoice', not fun_asr_nano",
     KNOWN),
    ("no width", state(audio_encoder_conf__output_size=0),
     f"/{CONFIG}: encoder.width is 0; adaptor.input_dim is 0", ""),
    ("quantized", state(quantization={"bits": 4, "group_size": 64}), f"/{WEIGHTS}: {DENSE}", INSTEAD),
    ("7 bits", state(quantization={"bits": 7, "group_size": 64}),
     f"/{CONFIG}: quantization: 7 bits in groups of 64, 'affine': no known quantization", ""),
    ("another mode", state(quantization={"bits": 4, "group_size": 32, "mode": "mxfp4"}),
     f"/{CONFIG}: quantization: 4 bits in groups of 32, 'mxfp4': no known quantization", ""),
]  # fmt: skip

OURS: list[Row] = [
    ("newer", state(format_version=2), f"/{CONFIG}: format version 2, this funasr reads 1",
     "upgrade funasr-cli, or convert the source again"),
    ("a field too many", state(encoder__dropout=0.1), f"/{CONFIG}: encoder: unknown dropout", ""),
    ("a field too few", state(encoder__blocks=None), f"/{CONFIG}: encoder: missing blocks", ""),
    ("half a layer", state(encoder__blocks=2.5), f"/{CONFIG}: encoder: blocks: expected int, found 2.5", ""),
    ("cut", cut(WEIGHTS, -1), f"/{WEIGHTS}: cut short: {LIBRARY}", AGAIN),
    ("a tensor too few", tensors(lambda found: found.pop(BIAS)),
     f"/{WEIGHTS}: {misfits(f'missing: {BIAS} (32,)')}", MISFIT),
    ("not a number", tensor(BIAS, first_value(float("nan"))), f"/{WEIGHTS}: {BIAS} {NO_NUMBERS}", "it is damaged"),
]  # fmt: skip

LAYOUTS = {"FunASR": FUNASR, "Transformers": TRANSFORMERS, "shards": SHARDS, "mlx-audio": MLX_AUDIO, "ours": OURS}

SOURCE_AGAIN = "convert the source again"
UNLISTED = "SHA256SUMS does not list it"
CHANGED = "is another one than when it was converted, by its SHA-256"
FOREIGN_SUM = f"{64 * '0'}  {{}}\n".format


def not_whole(*lines: str) -> str:
    return "\n  ".join([": is not whole", *lines])


def unlist(name: str) -> Change:
    """Take a line away from the list of digests."""

    def change(folder: Path) -> None:
        path = folder / "SHA256SUMS"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.endswith(f"  {name}\n")))
        assert len(path.read_text().splitlines()) == len(lines) - 1

    return change


CHECKS: list[Row] = [  # of our own, quantized
    ("a bit of a value", flip(WEIGHTS, -1), not_whole(f"{WEIGHTS}: {CHANGED}"), SOURCE_AGAIN),
    ("not a number", tensor(BIAS, first_value(float("nan"))),
     not_whole(f"{WEIGHTS}: {CHANGED}", f"{BIAS}: {NO_NUMBERS}"), SOURCE_AGAIN),
    ("a space more", lambda folder: put(TOKENIZER, (folder / TOKENIZER).read_bytes() + b" ")(folder),
     not_whole(f"{TOKENIZER}: {CHANGED}"), SOURCE_AGAIN),
    ("another tokenizer", two_tokens(TOKENIZER),
     not_whole(
         f"{TOKENIZER}: has no token <|im_start|>", f"{TOKENIZER}: has no token <|im_end|>",
         f"{TOKENIZER}: has no token 688, at which the model stops", f"{TOKENIZER}: {CHANGED}",
     ), SOURCE_AGAIN),
    ("a file too few", remove("merges.txt"), not_whole("merges.txt: SHA256SUMS lists it, and it is missing"),
     SOURCE_AGAIN),
    ("no digests", put("SHA256SUMS", b"none\n"), "/SHA256SUMS: not a list of SHA-256 digests", SOURCE_AGAIN),
    ("an empty list", put("SHA256SUMS", b""), "/SHA256SUMS: empty", SOURCE_AGAIN),
    ("a list without the weights", unlist(WEIGHTS), not_whole(f"{WEIGHTS}: {UNLISTED}"), SOURCE_AGAIN),
    ("a list without a configuration", unlist(CONFIG), not_whole(f"{CONFIG}: {UNLISTED}"), SOURCE_AGAIN),
    ("a list without the tokenizer", unlist(TOKENIZER), not_whole(f"{TOKENIZER}: {UNLISTED}"), SOURCE_AGAIN),
    ("no model card", remove("README.md"), not_whole("README.md: SHA256SUMS lists it, and it is missing"),
     SOURCE_AGAIN),
    ("a digest of something else", put("SHA256SUMS", FOREIGN_SUM("../secret").encode()),
     ": '../secret' is not the name of a file in it", ""),
    ("a pipe", replace_by_pipe("merges.txt"), "/merges.txt: not a file", ""),
    ("no scales", tensors(lambda found: found.pop(f"{GATE}.scales")),
     f"/{WEIGHTS}: " + misfits(
         f"unexpected: {GATE}.biases (128, 1)",
         f"misshapen: {GATE}.weight is (128, 8), the configuration says (128, 64)",
     ), MISFIT),
    ("a header cut", cut(WEIGHTS, 1000), f"/{WEIGHTS}: not a safetensors file, or cut short", AGAIN),
]  # fmt: skip
