"""Qwen3 chat models compared with transformers: prompts, logits, written tokens; and its sampling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY
from support.parity.live import run_reference
from support.qwen3 import NEVER_THINKS, TURNS, write_qwen3
from support.small import once

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.sampling import keep_top_k, keep_top_p
from funasr_cli.families.load import load_text
from funasr_cli.families.writing import QwenWriter
from funasr_cli.text_model import TextOptions

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "support/parity/record_qwen3.py"
SPECS: dict[str, dict[str, Any]] = {
    "tied": {"shards": 3},
    "untied": {"tied": False, "stop_gain": 2.0, "seed": 1, "rope_theta": 1e4, "num_hidden_layers": 4},
    # As Qwen3-4B-Instruct-2507: another RoPE, no thinking; and queries wider than the model, as in all 4B.
    "instruct": {"template": TURNS + NEVER_THINKS, "rope_theta": 5e6, "num_attention_heads": 8, "seed": 2},
}
MESSAGES = [
    [None, "Translate to English: 今天天气怎么样？谢谢大家，我们明天见。"],
    ["You are a helpful assistant.", "  What's the weather like?\n\nIt's  fine. "],
    [None, "我们"],
    ["语音转写", "The quick brown fox jumps over the lazy dog; 1961. " * 12],
]
TOKENS = 64
SAMPLING = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for temperature in (0.6, 1.0, 1.7)
    for top_k in (None, 1, 20, 600)
    for top_p in (None, 0.5, 0.95, 1.0)
]
SEED, SHAPE = 5, (8, 500)
# Of the range of the logits: rounding changes no choice above it. The library keeps keys and values in float16.
LEAST_MARGINS = {"mlx": 1e-3, "native": 4e-3}
ENGINES = ["mlx", *(["native"] if LIBRARY else [])]


@dataclass(frozen=True)
class Reference:
    """What transformers answers."""

    folders: dict[str, Path]
    answers: dict[str, list[dict[str, Any]]]
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    def make(folder: Path) -> None:
        checkpoints = [str(write_qwen3(folder / name, **spec)) for name, spec in SPECS.items()]
        job = {
            "checkpoints": checkpoints, "messages": MESSAGES, "tokens": TOKENS, "sampling": SAMPLING,
            "seed": SEED, "shape": SHAPE,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "answers")

    folder = once(tmp_path_factory, "qwen3", lambda path: (path.mkdir(), make(path)))
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    with np.load(folder / "answers.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    folders = {name: folder / name for name in SPECS}
    return Reference(folders, dict(zip(SPECS, answers, strict=True)), arrays)


@pytest.fixture(params=SPECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model(reference: Reference, name: str, engine: str) -> QwenWriter:
    loaded = load_text(reference.folders[name], "float32", engine)
    assert isinstance(loaded, QwenWriter)
    return loaded


def test_prompts(reference: Reference, name: str) -> None:
    """Token for token, with thinking switched off; the one that never thinks has no block."""
    writer = model(reference, name, "mlx")
    for (system, message), answer in zip(MESSAGES, reference.answers[name], strict=True):
        prompt = writer.chat(str(message), system)
        assert prompt == answer["prompt"]
        assert writer.tokenizer.encode(prompt, add_special_tokens=False).ids == answer["ids"]
        assert ("<think>" in prompt) == (name != "instruct")


@pytest.mark.parametrize("engine", ENGINES)
def test_logits(reference: Reference, name: str, engine: str) -> None:
    """Of 64 given tokens: the same likeliest token wherever it is not a matter of rounding."""
    writer, compared = model(reference, name, engine), 0
    for number, answer in enumerate(reference.answers[name]):
        case = f"{list(SPECS).index(name)}/{number}"
        wanted, forced = reference.arrays[f"{case}/logits"], reference.arrays[f"{case}/forced"].tolist()
        logits = writer.trace(answer["prompt"], 1, forced).logits
        assert logits.shape == wanted.shape == (TOKENS, wanted.shape[1])
        spread = np.ptp(wanted, axis=1)
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=LEAST_MARGINS[engine] * spread.max())
        first, second = np.sort(wanted, axis=1)[:, :-3:-1].T
        clear = first - second > LEAST_MARGINS[engine] * spread
        assert (logits.argmax(-1) == wanted.argmax(-1))[clear].all()
        compared += int(clear.sum())
    assert compared > 0.9 * TOKENS * len(MESSAGES)


@pytest.mark.parametrize("engine", ENGINES)
def test_written_tokens(reference: Reference, name: str, engine: str) -> None:
    """Greedily, together in a batch, up to one of both stop tokens: the tokens that `generate` writes."""
    writer = model(reference, name, engine)
    results = writer.write(
        [answer["prompt"] for answer in reference.answers[name]], TextOptions(max_tokens=TOKENS)
    )
    for answer, result in zip(reference.answers[name], results, strict=True):
        trace = writer.trace(answer["prompt"], TOKENS)
        assert list(trace.token_ids) == answer["written"]
        if result.stop_reason != "loop":
            assert result.tokens == len(answer["written"])
            spelled = writer.tokenizer.decode(answer["written"], skip_special_tokens=True)
            assert result.text == spelled.strip()
    if name == "untied":
        assert {result.stop_reason for result in results} >= {"eos"}


@pytest.mark.parametrize("number", range(len(SAMPLING)))
def test_sampling(reference: Reference, number: int) -> None:
    """Temperature, then top-k, then top-p keep the same tokens."""
    temperature, top_k, top_p = SAMPLING[number].values()
    random = np.random.default_rng(SEED).standard_normal(SHAPE).astype(np.float32) * 3
    logits = mx.array(random) / temperature
    logits = keep_top_k(logits, int(top_k)) if top_k else logits
    logits = keep_top_p(logits, top_p) if top_p else logits
    np.testing.assert_allclose(np.array(logits), reference.arrays[f"sampling/{number}"], rtol=1e-6)
