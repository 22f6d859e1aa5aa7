"""Whatever stands in a file of a checkpoint: it gives a valid value or one `ModelError`, in little memory."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from support.checkpoints import CheckpointSpec, upstream_config
from support.small import SMALL

from funasr_cli import demo
from funasr_cli.checkpoints.format import read_config
from funasr_cli.checkpoints.headers import ITEM_BYTES, StoredTensor, safetensors_header
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.plain_yaml import YAML_LIMIT_BYTES, read_yaml
from funasr_cli.checkpoints.sources import open_checkpoint
from funasr_cli.checkpoints.untrusted import (
    read_ctc_vocabulary,
    read_index,
    read_json,
    read_tokenizer,
)
from funasr_cli.checkpoints.upstream import nano_config
from funasr_cli.errors import ModelError
from funasr_cli.models.fun_asr_nano import MODEL_TYPE, FunASRNano, FunASRNanoConfig

FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
FEWER = settings(FUZZ, max_examples=60)
MOST_BYTES = 64 << 20


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of it; of a refusal, only that it says one printable line."""
    refused = None
    with little_memory():
        try:
            return read(*arguments)
        except ModelError as error:
            refused = error.message + error.hint
    assert refused.isprintable()
    assert len(refused) < 3000
    return None


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes exchanged, a piece taken out or put in, or cut short."""
    position = st.integers(0, len(content))
    flips = st.lists(st.tuples(position, st.integers(1, 255)), min_size=1, max_size=4)
    return st.one_of(
        flips.map(lambda changes: flipped(content, changes)),
        position.map(lambda end: content[:end]),
        st.tuples(position, st.integers(1, 64)).map(lambda cut: content[: cut[0]] + content[sum(cut) :]),
        st.tuples(position, st.binary(max_size=16)).map(
            lambda put: content[: put[0]] + put[1] + content[put[0] :]
        ),
    )


def flipped(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(content)
    for position, mask in changes:
        if position < len(damaged):
            damaged[position] ^= mask
    return bytes(damaged)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 70), st.floats(), st.text(max_size=8),
    st.sampled_from([10**12, 10**30, 2**63, 1 << 24, 0, -1, 1e308, 5e-324]),
    st.sampled_from(["16000", "", "\ud800", "../x", "\x1b[2J"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def paths_of(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in nested objects and lists."""
    items = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy in which something else stands at the end of the path."""
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = with_value(content[path[0]], path[1:], value)
    return copy


def edited(content: Any) -> st.SearchStrategy[Any]:
    """A structure with one or two of its values exchanged."""
    once = st.tuples(st.sampled_from(list(paths_of(content))), VALUES).map(lambda edit: with_value(content, *edit))
    return once | st.tuples(
        once, st.sampled_from([path for path in paths_of(content) if len(path) < 2]), VALUES
    ).map(lambda edit: with_value(*edit))


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


# --- safetensors ---

SHAPES = {"a": ("F32", [2, 3]), "b": ("BF16", [5]), "c": ("U8", []), "d": ("F32", [0])}


def header() -> dict[str, Any]:
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in SHAPES.items():
        begin, end = end, end + ITEM_BYTES[dtype] * (shape[0] * shape[-1] if len(shape) > 1 else sum(shape or [1]))
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return entries


DATA = bytes(6 * 4 + 5 * 2 + 1)


def safetensors(encoded: bytes, data: bytes = DATA) -> bytes:
    return struct.pack("<Q", len(encoded)) + encoded + data


def check_header(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tensors: dict[str, StoredTensor] | None = outcome(safetensors_header, path)
    if tensors is None:
        return
    with safe_open(path, "np") as file:  # what is let through, the library reads, too
        assert set(file.keys()) == tensors.keys()
    assert all(0 < tensor.begin <= tensor.end <= len(content) for tensor in tensors.values())
    assert sum(tensor.end - tensor.begin for tensor in tensors.values()) <= len(content)


def test_the_header_that_is_changed_here_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(as_json(header())))
    assert {
        name: (tensor.dtype, list(tensor.shape)) for name, tensor in safetensors_header(path).items()
    } == SHAPES


@FUZZ
@given(st.binary(max_size=200) | st.binary(max_size=100).map(safetensors))
def test_any_bytes_as_safetensors(tmp_path: Path, content: bytes) -> None:
    check_header(tmp_path / "a", content)


@FUZZ
@given(changed(safetensors(as_json(header()))))
def test_changed_safetensors(tmp_path: Path, content: bytes) -> None:
    check_header(tmp_path / "a", content)


@FUZZ
@given(edited(header()).map(as_json))
def test_edited_headers(tmp_path: Path, encoded: bytes) -> None:
    check_header(tmp_path / "a", safetensors(encoded))


def test_the_library_is_no_stricter_about_any_type(tmp_path: Path) -> None:
    """Each of the known types is one of the library's, of the size that it takes."""
    path = tmp_path / "a"
    for dtype, size_bytes in ITEM_BYTES.items():
        for given_bytes in (size_bytes, size_bytes + 1):
            entry = {"dtype": dtype, "shape": [1], "data_offsets": [0, given_bytes]}
            path.write_bytes(safetensors(as_json({"a": entry}), bytes(given_bytes)))
            agrees = contextlib.nullcontext() if given_bytes == size_bytes else pytest.raises(SafetensorError)
            with agrees, safe_open(path, "np"):
                pass
            assert (outcome(safetensors_header, path) is not None) == (given_bytes == size_bytes)


# --- configurations ---

LLM = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 128, "vocab_size": 768, "rope_theta": 1e6,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "attention_bias": False, "eos_token_id": [1, 2],
    "rope_scaling": {"rope_type": "default"}, "layer_types": ["full_attention"], "hidden_act": "silu",
}  # fmt: skip
YAML = upstream_config(SMALL)


def check_nano_config(options: Any, llm: Any) -> None:
    """A configuration that is let through is one that a model can be built from."""
    config: FunASRNanoConfig | None = outcome(
        lambda: nano_config(options, llm, ctc=True, languages=("zh",), where="a")
    )
    if config is not None:
        with little_memory():
            assert model_shapes(FunASRNano(config))


def test_the_configuration_that_is_changed_here_is_a_good_one() -> None:
    assert nano_config(YAML, LLM, ctc=True, languages=("zh",), where="a").llm.hidden_size == 64
    assert isinstance(SMALL, CheckpointSpec)


@FUZZ
@given(edited(YAML), edited(LLM), st.booleans())
def test_edited_configurations(options: Any, llm: Any, whose: bool) -> None:
    check_nano_config(*((options, LLM) if whose else (YAML, llm)))


@FUZZ
@given(st.binary(max_size=200) | changed(as_json(LLM)) | edited(LLM).map(as_json) | VALUES.map(as_json))
def test_any_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    outcome(read_index, path)
    parsed = outcome(read_json, path)
    if parsed is not None:
        assert json.loads(content) == parsed
        check_nano_config(YAML, parsed)


@FUZZ
@given(edited(json.loads((demo.MODEL / "config.json").read_text(encoding="utf-8"))))
def test_edited_configurations_of_converted_models(tmp_path: Path, content: Any) -> None:
    (tmp_path / "config.json").write_bytes(as_json(content))
    model = outcome(read_config, tmp_path)
    if model is not None:
        with little_memory():
            assert model_shapes(FunASRNano(model.config))


YAML_TEXT = yaml.safe_dump(YAML, sort_keys=False).encode()
PIECES = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: ", "!!int ", "!x ", "? ", "| ", "> ",
     "'", '"', "\\", "%", "---\n", "...\n", "#", "1", "0x_", "1:1", ".", "=", "~", "2026-99-99", "\t", "\r"]
)  # fmt: skip


@FEWER
@given(
    st.binary(max_size=200)
    | st.lists(PIECES, max_size=40).map("".join).map(str.encode)
    | changed(YAML_TEXT)
    | edited(YAML).map(lambda content: yaml.safe_dump(content).encode())
)
def test_any_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    parsed = outcome(read_yaml, path)
    if parsed is not None:
        check_nano_config(parsed, LLM)


@pytest.mark.parametrize(
    "content", [b"a: " + b"[" * 1000, b"- " * 30_000, b"a:\n" + b" -\n" * 10_000, b"a: {" + b"x," * 10_000]
)
def test_the_largest_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content[:YAML_LIMIT_BYTES])
    outcome(read_yaml, path)


# --- other layouts ---

TRANSFORMERS = {
    "model_type": MODEL_TYPE,
    "audio_config": {"num_hidden_layers": 3, "num_timestamp_prediction_layers": 1, "hidden_size": 32},
    "adaptor_config": {"projector_hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 8},
    "text_config": LLM,
}
MLX_AUDIO = {
    "model_type": MODEL_TYPE,
    "model_repo": "owner/model",
    "qwen_tokenizer_path": "Qwen3-0.6B",
    "quantization": {"group_size": 64, "bits": 4, "llm.model.norm": {"group_size": 32, "bits": 8}},
    **{name: YAML[name] for name in ("frontend_conf", "audio_encoder_conf", "audio_adaptor_conf")},
    "text_config": LLM,
}
TENSORS = st.sampled_from(
    ["model.audio_tower.layers.{}.self_attn.{}_proj.weight", "model.audio_tower.layers.{}.final_layernorm.weight",
     "lm_head.weight", "llm.lm_head.weight", "llm.model.embed_tokens.weight", "llm.model.layers.{}.{}.scales",
     "{}.{}"]
)  # fmt: skip


@FUZZ
@given(
    st.sampled_from([TRANSFORMERS, MLX_AUDIO]).flatmap(lambda config: edited(config) | st.just(config)),
    st.lists(st.tuples(TENSORS, st.integers(0, 4) | st.integers(0), st.sampled_from("qkvx")), max_size=4),
)
def test_edited_layouts(tmp_path: Path, config: Any, names: list[tuple[str, int, str]]) -> None:
    """With all files at hand, and tensors of many names."""
    (tmp_path / "Qwen3-0.6B").mkdir(exist_ok=True)
    for name in ("tokenizer.json", "Qwen3-0.6B/tokenizer.json"):
        (tmp_path / name).write_text("{}")
    entries = {
        name.format(number, letter): {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i, (name, number, letter) in enumerate(dict.fromkeys(names))
    }
    (tmp_path / "model.safetensors").write_bytes(safetensors(as_json(entries), bytes(4 * len(entries))))
    (tmp_path / "config.json").write_bytes(as_json(config))
    outcome(open_checkpoint, tmp_path, "model")


# --- tokenizers ---

TOKENIZER = (demo.MODEL / "tokenizer.json").read_bytes()


def small_tokenizer() -> dict[str, Any]:
    content = json.loads(TOKENIZER)
    vocabulary = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])[:60]
    content["model"] |= {"vocab": dict(vocabulary), "merges": []}
    content["added_tokens"] = [token | {"id": 60 + i} for i, token in enumerate(content["added_tokens"][:2])]
    return content


def check_tokenizer(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tokenizer = outcome(read_tokenizer, path, 2048)
    if tokenizer is not None:
        assert all(0 <= token_id < 2048 for token_id in tokenizer.get_vocab().values())


@FEWER
@given(st.binary(max_size=200) | changed(TOKENIZER))
def test_any_tokenizer(tmp_path: Path, content: bytes) -> None:
    check_tokenizer(tmp_path / "tokenizer.json", content)


@FUZZ
@given(edited(small_tokenizer()).map(as_json))
def test_edited_tokenizers(tmp_path: Path, content: bytes) -> None:
    check_tokenizer(tmp_path / "tokenizer.json", content)


@FEWER
@given(st.binary(max_size=200) | changed(b"IQ== 0\nIg== 1\nIw== 2\n"))
def test_any_ctc_vocabulary(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "multilingual.tiktoken"
    path.write_bytes(content)
    vocabulary = outcome(read_ctc_vocabulary, path)
    if vocabulary is not None:
        assert isinstance(vocabulary.decode([0, 1, 2]), str)
