"""Models of a known size with random weights, for benchmarks without a checkpoint.

Their texts are meaningless, but they cost as much as those of a trained model of that size: all tensors have the
same shapes, and prompts have as many tokens as in the release.
"""

import dataclasses
import itertools
import math
import shutil
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import default_rng  # here, not when first used: see `cli.bench`
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from funasr_cli import __version__, demo
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import quantize
from funasr_cli.checkpoints.checkpoint import stored_shapes
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.quantize import BIASES, PACKED, SCALES, Groups
from funasr_cli.checkpoints.tensors import Shape
from funasr_cli.errors import OutputError
from funasr_cli.families import registry
from funasr_cli.families.converted import ModelFile, read_config, write_config
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig, PromptConfig
from funasr_cli.families.funasr_qwen4b.config import FunASRQwen4BConfig
from funasr_cli.families.kept import Int8Proof, Kept
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.languages import NANO_LANGUAGES
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.post_norm import PostNormConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig
from funasr_cli.options import UNSCALED_INPUT, ConvertOptions

DTYPE = "bfloat16"  # as in the release
SEED_VALUES = 1_000_003  # random values to repeat; a prime, so that no two rows of a matrix start alike
ORDINARY_TOKENS = 151_643  # as in Qwen's tokenizer; special tokens follow
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Parts of the prompt that are single tokens in Qwen's tokenizer, so that prompts are as long as in the release.
PROMPT_PIECES = (
    "system", "user", "assistant", "You", " are", " a", " helpful", " assistant", "语音", "转", "写", "成",
    "中文", "英文", "日文", "，", "不", "进行", "文本", "规", "整", "：", "<think>", "</think>",
    "只", "输出", "文字", "不要", "分析", "或", "解释", "Translate", " the", " speech", " to", " English", ":",
)  # fmt: skip
FOUR_BITS = ConvertOptions(quantize="4")

# Fun-ASR-Nano-2512: 829.8 million parameters.
RELEASE = FunASRNanoConfig(
    frontend=FrontendConfig(
        sample_rate_hz=16000, window="hamming", mel_bins=80, frame_length_ms=25.0, frame_shift_ms=10.0,
        stack_frames=7, stack_step=6,
    ),
    encoder=SANMConfig(
        input_dim=560, width=512, heads=4, ffn_dim=2048, blocks=50, tp_blocks=20, memory_taps=11, memory_shift=0
    ),
    adaptor=AdaptorConfig(
        input_dim=512, output_dim=1024, ffn_dim=2048, layers=2, heads=8, downsample=1, low_frame_rate=True
    ),
    llm=Qwen3Config(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        intermediate_size=3072, vocab_size=151_936, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
        attention_bias=False,
    ),
    ctc=None,
    prompt=PromptConfig(system_turn=True, empty_think=False, languages=NANO_LANGUAGES),
    stop_token_ids=(ORDINARY_TOKENS + SPECIAL_TOKENS.index("<|im_end|>"),),
)  # fmt: skip


# FunASR-Qwen4B: 4.45 billion parameters.
QWEN4B = FunASRQwen4BConfig(
    encoder_input=UNSCALED_INPUT,
    prompt_format="current",
    frontend=RELEASE.frontend,
    encoder=RELEASE.encoder,
    adaptor=PostNormConfig(input_dim=512, width=2048, ffn_dim=8192, output_dim=2560, layers=4, heads=8),
    llm=dataclasses.replace(
        RELEASE.llm, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, intermediate_size=9728
    ),
    stop_token_ids=(RELEASE.stop_token_ids[0], ORDINARY_TOKENS),
    positions=40_960,
    empty_think=True,
)


def write_synthetic(folder: Path, size: str) -> Path:
    """Write a converted model with random weights into a new subfolder, and return the subfolder.

    The size is "full", as Fun-ASR-Nano, "qwen4b", as FunASR-Qwen4B in 4 bits, or "demo", as the bundled model. Its
    texts mean nothing, so it counts as one that writes the same in int8 as in float32.

    Raises:
        OutputError: the model cannot be written.
    """
    out = folder / f"synthetic-{size}"
    config: Any = {"full": RELEASE, "qwen4b": QWEN4B}.get(size)
    config = config or dataclasses.replace(read_config(demo.MODEL).config, ctc=None)
    source = {"source": f"synthetic {size}", "revision": None, "tool_version": f"funasr-cli {__version__}"}
    family = registry.of_config(config)
    dense = model_shapes(family.network(config))
    chosen = quantize.plan(FOUR_BITS, family.parts, dense) if config is QWEN4B else {}
    shapes = stored_shapes(dense, chosen)
    packed = {f"{module}.weight" for module in chosen}
    specs = {name: (PACKED if name in packed else DTYPE, shape) for name, shape in shapes.items()}
    try:
        out.mkdir()
        if size != "demo":
            _release_tokenizer().save(str(out / files.TOKENIZER_FILE))
        else:
            shutil.copyfile(demo.MODEL / files.TOKENIZER_FILE, out / files.TOKENIZER_FILE)
        contents = _contents(shapes, chosen)
        files.write_safetensors(out / files.WEIGHTS_FILE, specs, contents, {"format": files.FORMAT})
        write_config(out, ModelFile(config, DTYPE, quantize.summarise(chosen, family.parts), source))
        Kept(out, (out / files.WEIGHTS_FILE,), is_ours=True).keep_proof(Int8Proof(clips=()))
    except OSError as error:
        hint = "set TMPDIR to a folder with more space"
        raise OutputError(f"{out}: cannot be written ({error})", hint, code="disk-full") from error
    return out


def _contents(shapes: dict[str, Shape], chosen: Mapping[str, Groups]) -> Iterator[memoryview]:
    """Yield the bytes of each array: norms are the identity, biases are 0, matrices preserve the variance."""
    random = default_rng(0)
    noise = random.standard_normal(SEED_VALUES).astype(np.float32)
    integers = random.integers(0, 1 << 32, SEED_VALUES, np.uint32)
    for name, shape in shapes.items():
        module, _, part = name.rpartition(".")
        groups = chosen.get(module)
        if groups and part == "weight":
            yield np.resize(integers, math.prod(shape)).data.cast("B")
            continue
        if groups and part in (SCALES, BIASES):
            most = (1 << groups.bits) - 1  # of uniform integers, whose standard deviation is most / sqrt(12)
            scale = 12**0.5 / most * (shape[1] * groups.group_size) ** -0.5
            values = np.full(1, scale if part == SCALES else -scale * most / 2, np.float32)
        elif len(shape) > 1:
            values = noise * math.prod(shape[1:]) ** -0.5
        else:
            values = np.full(1, name.endswith(".weight"), np.float32)
        halves = (values.view(np.uint32) >> 16).astype(np.uint16)  # the upper half of a float32 is a bfloat16
        yield np.resize(halves, math.prod(shape)).data.cast("B")


def _release_tokenizer() -> Tokenizer:
    """Return a byte-level tokenizer without merges, with as many tokens as Qwen's. Most tokens are made up."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4))
    vocabulary = [*alphabet, *itertools.islice(words, ORDINARY_TOKENS - len(alphabet))]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in PROMPT_PIECES])
    return tokenizer
