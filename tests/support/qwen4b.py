"""Random parts of FunASR-Qwen4B in the layouts of PyTorch and OminiX: encoder, adaptor, language model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.qwen3 import write_qwen3
from support.small import convert, once
from support.tokenizers_bpe import write_json, write_tokenizer

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.checkpoints.format import write_safetensors
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.families.funasr_qwen4b.model import Qwen4BModel
from funasr_cli.families.load import load_model
from funasr_cli.models.post_norm import PostNormAdaptor, PostNormConfig
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config
from funasr_cli.models.sanm import SANMConfig, SANMEncoder
from funasr_cli.options import TranscribeOptions
from funasr_cli.speech_model import Hypothesis, SegmentRequest
from funasr_cli.transcript import Segment

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
ENCODER = SANMConfig(
    input_dim=560, width=64, heads=4, ffn_dim=96, blocks=3, tp_blocks=2, memory_taps=11, memory_shift=0
)
ADAPTOR = PostNormConfig(input_dim=64, width=64, ffn_dim=128, output_dim=64, layers=2, heads=8)
# The published sizes: 221 M, 208 M and 4,022 M parameters.
FULL_ENCODER = SANMConfig(
    input_dim=560, width=512, heads=4, ffn_dim=2048, blocks=50, tp_blocks=20, memory_taps=11, memory_shift=0
)
FULL_ADAPTOR = PostNormConfig(input_dim=512, width=2048, ffn_dim=8192, output_dim=2560, layers=4, heads=8)
FULL_LLM = Qwen3Config(
    hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    intermediate_size=9728, vocab_size=151_936, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
    attention_bias=False,
)  # fmt: skip
NAMES = {  # the encoder's, upstream and in OminiX's files
    "self_attn.linear_q_k_v": "attn.qkv", "self_attn.fsmn_block": "attn.fsmn", "self_attn.linear_out": "attn.out",
    "feed_forward.w_1": "ffn.w1", "feed_forward.w_2": "ffn.w2",
}  # fmt: skip
ENCODER_FILE, ADAPTOR_FILE = "sensevoice_iic.safetensors", "adaptor_phase2_final.safetensors"
LLM_FOLDER = "models/Qwen3-4B"


def encoder_shapes(config: SANMConfig) -> Shapes:
    """Return upstream's names and PyTorch's shapes."""
    shapes = model_shapes(SANMEncoder(config)).items()
    return {f"encoder.{name}": (shape[0], 1, shape[1]) if "fsmn" in name else shape for name, shape in shapes}


def adaptor_shapes(config: PostNormConfig) -> Shapes:
    """Return PyTorch's names and shapes."""
    found = {}
    for name, shape in model_shapes(PostNormAdaptor(config)).items():
        name = name.replace(".in_proj.", ".self_attn.in_proj_").replace(".out_proj", ".self_attn.out_proj")
        found[f"transformer.{name}" if name.startswith("layers.") else name] = shape
    return found


def random_arrays(shapes: Shapes, seed: int) -> Arrays:
    """Return weights with biases and norms off 0 and 1, and sharp attention."""
    random, found = np.random.default_rng(seed), Arrays()
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            values = 0.1 * values + np.float32("norm" in name and name.endswith("weight"))
        else:
            values *= np.float32(1.5 * max(shape[1:]) ** -0.5)
        found[name] = values
    return found


def encoder_arrays(config: SANMConfig = ENCODER, seed: int = 1) -> Arrays:
    return random_arrays(encoder_shapes(config), seed)


def adaptor_arrays(config: PostNormConfig = ADAPTOR, seed: int = 2) -> Arrays:
    return random_arrays(adaptor_shapes(config), seed)


def ominix_encoder(arrays: Arrays) -> Arrays:
    """Rename an encoder as OminiX's files have it."""
    for there, here in NAMES.items():
        arrays = {name.replace(there, here): values for name, values in arrays.items()}
    return arrays


def ominix_adaptor(arrays: Arrays, prefix: str = "") -> Arrays:
    """Rename an adaptor as OminiX's files have it, with a prefix of its feed-forward layers, and split q, k, v."""
    found = Arrays()
    for name, values in arrays.items():
        name = name.removeprefix("transformer.").replace(".self_attn.", ".").replace(".linear", f".{prefix}linear")
        stem, packed, kind = name.partition("in_proj_")
        if packed:
            parts = zip("qkv", np.split(values, 3), strict=True)
            found |= {f"{stem}{letter}_proj.{kind}": part.copy() for letter, part in parts}
        else:
            found[name] = values
    return found


def write_folder(folder: Path, **llm: Any) -> Path:
    """Write a folder in OminiX's layout; `llm` is passed to `write_qwen3`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(ominix_encoder(encoder_arrays()), folder / ENCODER_FILE)
    save_file(ominix_adaptor(adaptor_arrays()), folder / ADAPTOR_FILE)
    write_qwen3(folder / LLM_FOLDER, **llm)
    return folder


def write_full(folder: Path) -> Path:
    """Write a folder of the published sizes, 9.8 GB, one tensor in memory at a time."""
    llm = folder / LLM_FOLDER
    llm.mkdir(parents=True)
    _write_noise(folder / ENCODER_FILE, encoder_shapes(FULL_ENCODER), "float32")
    _write_noise(folder / ADAPTOR_FILE, adaptor_shapes(FULL_ADAPTOR), "float32")
    tokenizer, shapes, places = write_tokenizer(llm, 800), model_shapes(Qwen3(FULL_LLM)), dict[str, str]()
    names = list(shapes)
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        chosen = names[number * len(names) // 3 : (number + 1) * len(names) // 3]
        _write_noise(llm / file, {name: shapes[name] for name in chosen}, "bfloat16")
        places |= dict.fromkeys(chosen, file)
    write_json(llm / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    stop = tokenizer.token_to_id("<|im_end|>")
    content = vars(FULL_LLM) | {"model_type": "qwen3", "eos_token_id": stop, "max_position_embeddings": 40960}
    write_json(llm / "config.json", content)
    return folder


def _write_noise(path: Path, shapes: Shapes, dtype: str) -> None:
    noise = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float32)

    def contents() -> Iterator[memoryview]:
        for name, shape in shapes.items():
            if len(shape) == 1:
                values = np.full(1, "norm" in name and name.endswith("weight"), np.float32)
            else:
                values = noise * np.float32(max(shape[1:]) ** -0.5)
            # The upper half of a float32 is a bfloat16.
            raw = values if dtype == "float32" else (values.view(np.uint32) >> 16).astype(np.uint16)
            yield np.resize(raw, math.prod(shape)).data.cast("B")

    write_safetensors(path, {name: (dtype, shape) for name, shape in shapes.items()}, contents(), {"format": "pt"})


@pytest.fixture(scope="session")
def qwen4b_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in OminiX's layout, with a language model in shards. Do not change it."""
    return once(tmp_path_factory, "Qwen4B", lambda folder: write_folder(folder, shards=3, tied=False))


@pytest.fixture(scope="session")
def small_qwen4b(qwen4b_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`qwen4b_source` converted in float32. Do not change it."""
    return once(tmp_path_factory, "qwen4b", lambda folder: convert(qwen4b_source, folder, dtype="float32"))


@pytest.fixture
def qwen4b(small_qwen4b: Path) -> Qwen4BModel:
    """A model that a test may change."""
    return load_qwen4b(small_qwen4b)


def load_qwen4b(folder: Path, dtype: str = "float32", engine: str = "mlx") -> Qwen4BModel:
    found = load_model(folder, dtype, engine)
    assert isinstance(found, Qwen4BModel)
    return found


RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(0, 0.1, int(seconds * 16000)).astype(np.float32) for seconds in (1, 2.5, 6, 0.2)]


def request(samples: np.ndarray) -> SegmentRequest:
    return SegmentRequest(0, AudioSegment(8000, samples, np.ones(max(1, len(samples) // 512))), True)


def hypotheses(model: Qwen4BModel, options: TranscribeOptions, *clips: np.ndarray) -> list[Hypothesis]:
    """Decode clips as one batch."""
    session = model.session(options)
    numbers = session.add([request(samples) for samples in clips])
    found: dict[int, Hypothesis] = {}
    while len(found) < len(clips):
        found |= {update.row: update.hypothesis for update in session.step() if update.hypothesis}
    return [found[number] for number in numbers]


def decode(model: Qwen4BModel, options: TranscribeOptions, *clips: np.ndarray) -> list[Segment]:
    return [hypothesis.segment for hypothesis in hypotheses(model, options, *clips)]
