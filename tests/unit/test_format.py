"""The layout of a converted model: safetensors and `config.json`, and what is refused in them."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from support.errors import refused
from support.small import edit_json

from funasr_cli.checkpoints.format import Spec, write_safetensors
from funasr_cli.checkpoints.tensors import size_bytes
from funasr_cli.families.converted import read_config, write_config
from funasr_cli.families.load import load_model

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint32": torch.uint32}
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
SPECS = st.dictionaries(
    st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(sorted(TORCH_DTYPES)), SHAPES), max_size=5
)


@given(SPECS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.data())
def test_safetensors_round_trip(
    tmp_path_factory: pytest.TempPathFactory, specs: dict[str, Spec], metadata: dict[str, str], data: Any
) -> None:
    """The safetensors library reads every shape and type back unchanged."""
    path = tmp_path_factory.mktemp("st") / "a.safetensors"
    sizes = [size_bytes(*spec) for spec in specs.values()]
    contents = [data.draw(st.binary(min_size=size, max_size=size)) for size in sizes]
    write_safetensors(path, specs, map(memoryview, contents), metadata)
    read = load_file(path)
    assert read.keys() == specs.keys()
    for (name, (dtype, shape)), content in zip(specs.items(), contents, strict=True):
        tensor = read[name]
        assert tensor.dtype == TORCH_DTYPES[dtype]
        assert tuple(tensor.shape) == shape
        assert bytes(tensor.flatten().view(torch.uint8).tolist()) == content
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == metadata


def test_safetensors_refuses_wrong_sizes_and_existing_files(tmp_path: Path) -> None:
    path, specs = tmp_path / "a", {"x": ("float32", (2,))}
    with pytest.raises(ValueError, match="x: 4 bytes, expected 8"):
        write_safetensors(path, specs, iter([memoryview(bytes(4))]), {})
    with pytest.raises(FileExistsError):
        write_safetensors(path, specs, iter([memoryview(bytes(8))]), {})
    with pytest.raises(ValueError, match="shorter"):
        write_safetensors(tmp_path / "b", specs, iter([]), {})


def test_safetensors_takes_one_tensor_at_a_time(tmp_path: Path) -> None:
    """A tensor is only made after the previous one has been written."""
    path, sizes = tmp_path / "a", []

    def contents() -> Any:
        for _ in range(3):
            sizes.append(path.stat().st_size if path.exists() else 0)
            yield memoryview(bytes(1 << 20))

    write_safetensors(path, dict.fromkeys("abc", ("float32", (1 << 18,))), contents(), {})
    assert all(later - earlier >= (1 << 20) - 4096 for earlier, later in itertools.pairwise(sizes))
    assert path.stat().st_size > 3 << 20


def test_config_round_trip(small_model: Path, tmp_path: Path) -> None:
    write_config(tmp_path, read_config(small_model))
    assert (tmp_path / "config.json").read_bytes() == (small_model / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("format", "other", "model-unsupported"), ("model_type", "qwen2", "model-unsupported"),
        ("format_version", 2, "model-unsupported"), ("format_version", None, "model-unsupported"),
        ("source", "x", "model-config"), ("source", None, "model-config"), ("source", {"name": 1}, "model-config"),
        ("dtype", None, "model-config"), ("dtype", "float16", "model-config"), ("dtype", [], "model-config"),
        ("quantization", {"bits": 5, "group_size": 48}, "model-unsupported"),
        ("quantization", [4, 64], "model-config"), ("quantization", {"bits": 4}, "model-config"),
        ("encoder", None, "model-config"), ("encoder.width", "32", "model-config"),
        ("encoder.heads", 0, "model-config"), ("encoder.heads", 3, "model-config"),
        ("encoder.blocks", -1, "model-config"), ("encoder.memory_shift", 6, "model-config"),
        ("adaptor.input_dim", 64, "model-config"), ("adaptor.output_dim", 800, "model-config"),
        ("encoder.input_dim", 562, "model-config"),
        ("frontend.mel_bins", 40, "model-config"),
        ("adaptor.heads", 7, "model-config"), ("adaptor.downsample", 0, "model-config"),
        ("llm.num_key_value_heads", 3, "model-config"), ("llm.hidden_size", 10**4000, "model-config"),
        ("llm.rope_theta", 0.0, "model-config"), ("llm.rms_norm_eps", math.nan, "model-config"),
        ("frontend.window", "blackman", "model-config"), ("frontend.stack_step", 0, "model-config"),
        ("frontend.frame_shift_ms", 0.01, "model-config"), ("stop_token_ids", [], "model-config"),
        ("stop_token_ids", [768], "model-config"), ("prompt.languages", ["zh", "xx"], "model-config"),
        ("prompt.languages", [], "model-config"), ("ctc", {}, "model-config"),
    ],
)  # fmt: skip
def test_damaged_config_is_refused(model: Path, path: str, value: Any, code: str) -> None:
    *outer, last = path.split(".")

    def change(config: dict[str, Any]) -> None:
        for key in outer:
            config = config[key]
        config[last] = value

    edit_json(model / "config.json", change)
    with refused(code) as caught:
        load_model(model)
    assert caught.value.message.startswith(f"{model / 'config.json'}: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 700


def test_several_problems_are_named_together(model: Path) -> None:
    edit_json(
        model / "config.json", lambda config: (config["llm"].update(head_dim=0), config["encoder"].update(heads=0))
    )
    with refused("model-config", "encoder.heads is 0; llm.head_dim is 0"):
        load_model(model)
