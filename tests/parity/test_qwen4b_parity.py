"""FunASR-Qwen4B compared with FunASR's encoder, PyTorch's layers and Transformers' Qwen3, on random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.native import LIBRARY
from support.parity.live import REPOSITORY, run_reference
from support.qwen3 import write_qwen3
from support.qwen4b import ADAPTOR, ENCODER, adaptor_arrays, encoder_arrays, load_qwen4b
from support.small import convert, once

from funasr_cli.audio.decode import load_audio
from funasr_cli.compute.backend import mx
from funasr_cli.families.funasr_qwen4b.prompt import CURRENT, FORMATS
from funasr_cli.features.floored_fbank import FlooredFrontend
from funasr_cli.models import post_norm

pytestmark = [pytest.mark.slow, pytest.mark.process]

SCRIPT = REPOSITORY / "tests/support/parity/record_qwen4b.py"
ENGINES = ["mlx", *(["native"] if LIBRARY else [])]
STEPS = 64
CLIPS = ("zh", "en", "short")
ADAPTOR_LIMIT, LOGITS_LIMIT = 1e-5, 1e-3  # absolute; of the range


def features_of(samples: np.ndarray) -> np.ndarray:
    """Compute the encoder's input step by step in float64, as OminiX's loops do: (rows, 560)."""
    frames = 1 + max(0, len(samples) - 400) // 160
    padded = np.pad(samples.astype(np.float64), (0, max(0, 400 - len(samples))))
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    edges_mel = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (20, 8000)), 82)
    edges = [int(513 * 700 * (10 ** (mel / 2595) - 1) / 16000) for mel in edges_mel]
    filters = np.zeros((80, 257))
    for index, (left, center, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for place in range(left, center):
            filters[index, place] = (place - left) / (center - left)
        for place in range(center, right):
            filters[index, place] = (right - place) / (right - center)
    mel = np.empty((frames, 80))
    for frame in range(frames):
        power = np.abs(np.fft.rfft(padded[160 * frame : 160 * frame + 400] * window, 512)) ** 2
        mel[frame] = np.log(np.maximum(filters @ power, np.finfo(np.float32).eps))
    rows = []
    for center in range(0, frames, 6):
        near = [min(max(center + offset, 0), frames - 1) for offset in range(-3, 4)]
        rows.append(np.concatenate([mel[frame] for frame in near]))
    return np.array(rows, np.float32)


class Reference:
    """The converted model, and what the reference computes from the same parts."""

    def __init__(self, folder: Path):
        self.model, self.audio = folder / "model", dict(np.load(folder / "audio.npz"))
        self.arrays: dict[str, Any] = dict(np.load(folder / "out.npz"))
        self.features, self.forced = dict(np.load(folder / "features.npz")), forced_ids()


def forced_ids() -> dict[str, list[int]]:
    random = np.random.default_rng(3)
    return {name: random.integers(0, 500, STEPS - 1).tolist() for name in CLIPS}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path) -> Reference:
    def make(folder: Path) -> None:
        folder.mkdir()
        save_file(encoder_arrays(), folder / "sensevoice_iic.safetensors")
        state = {name: torch.from_numpy(values) for name, values in adaptor_arrays().items()}
        torch.save(state, folder / "adaptor_phase2_final.pt")
        llm = write_qwen3(folder / "qwen3-4b", shards=2)
        convert(folder, folder / "model", dtype="float32")
        zh = load_audio(zh_wav, 16000).samples
        clips = dict(zip(CLIPS, (zh, load_audio(en_flac, 16000).samples[:50_000], zh[:200]), strict=True))
        np.savez(folder / "audio.npz", **clips)
        np.savez(folder / "features.npz", **{name: features_of(samples) for name, samples in clips.items()})
        sizes = {
            "input_size": 560, "output_size": ENCODER.width, "attention_heads": ENCODER.heads,
            "linear_units": ENCODER.ffn_dim, "num_blocks": ENCODER.blocks, "tp_blocks": ENCODER.tp_blocks,
            "kernel_size": ENCODER.memory_taps, "sanm_shfit": 0, "normalize_before": True,
        }  # fmt: skip
        job = {
            "encoder": str(folder / "sensevoice_iic.safetensors"), "sizes": sizes, "heads": ADAPTOR.heads,
            "adaptor": str(folder / "adaptor_phase2_final.pt"), "llm": str(llm), "prompts": FORMATS[CURRENT],
            "features": str(folder / "features.npz"), "forced": forced_ids(),
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "out.npz")

    return Reference(once(tmp_path_factory, "qwen4b-parity", make))


def check_features(reference: Reference, model: Any, clip: str) -> None:
    found = model.features(reference.audio[clip])
    assert found.shape == reference.features[clip].shape
    assert np.abs(found - reference.features[clip]).max() < 1e-3  # logarithms of what float32 leaves of little


def check_encoder(reference: Reference, model: Any, clip: str) -> None:
    [found] = model.encoded([reference.features[clip]])
    assert np.abs(np.array(found) - reference.arrays[f"{clip}/encoder"]).max() < 1e-4


def check_adaptor(reference: Reference, model: Any, clip: str) -> None:
    [found] = model.network.audio_embeddings([reference.arrays[f"{clip}/encoder"]])
    assert np.abs(np.array(found) - reference.arrays[f"{clip}/adaptor"]).max() < ADAPTOR_LIMIT


def check_prompts(reference: Reference, model: Any, clip: str) -> None:
    for task, texts in FORMATS[CURRENT].items():
        for part, text in zip(("before", "after"), texts, strict=True):
            assert model.token_ids(text) == reference.arrays[f"{task}/{part}"].tolist()


def check_logits(reference: Reference, model: Any, clip: str) -> None:
    """Tokens are the same wherever the reference's best and second-best logits are not close."""
    for task in FORMATS[CURRENT]:
        [[prompt]] = model.task_prompts([reference.arrays[f"{clip}/encoder"]], [task])
        columns = mx.concatenate([prompt, model._embedded(reference.forced[clip])])
        found = np.array(model.network.llm.logits_after(columns, STEPS))
        expected = reference.arrays[f"{clip}/{task}/logits"]
        assert found.shape == expected.shape
        limit = LOGITS_LIMIT * np.ptp(expected)
        assert np.abs(found - expected).max() < limit
        second, best = np.sort(expected, axis=-1)[:, -2:].T
        clear = best - second > limit
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


CHECKS = {
    "features": check_features, "encoder": check_encoder, "adaptor": check_adaptor, "prompts": check_prompts,
    "logits": check_logits,
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clip", CLIPS)
def test_every_stage(reference: Reference, clip: str, engine: str) -> None:
    model = load_qwen4b(reference.model, engine=engine)
    for check in CHECKS.values():
        check(reference, model, clip)


@pytest.mark.parametrize("engine", ENGINES)
def test_alone_as_in_any_batch(reference: Reference, engine: str) -> None:
    """A clip's adapted rows do not depend on the clips that it is computed with, nor on their padding."""
    model = load_qwen4b(reference.model, engine=engine)
    encoded = [reference.arrays[f"{clip}/encoder"] for clip in CLIPS]
    together = model.network.audio_embeddings(encoded)
    for clip, found in zip(CLIPS, together, strict=True):
        assert np.abs(np.array(found) - reference.arrays[f"{clip}/adaptor"]).max() < ADAPTOR_LIMIT


def pre_norm(_: pytest.MonkeyPatch, model: Any) -> None:
    def layer(self: Any, x: mx.array, valid: Any) -> mx.array:
        q, k, v = mx.split(self.in_proj(self.norm1(x)), 3, axis=-1)
        x = x + self.out_proj(post_norm.self_attention(q, k, v, self._heads, valid))
        return x + self.linear2(post_norm.nn.gelu(self.linear1(self.norm2(x))))

    _.setattr(post_norm.PostNormLayer, "__call__", layer)


def approximate_gelu(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(post_norm.nn, "gelu", post_norm.nn.gelu_approx)


def relu(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(post_norm.nn, "gelu", post_norm.nn.relu)


def another_epsilon(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.audio_adaptor.layers[0].norm1.eps = 1e-3


def no_last_norm(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.audio_adaptor.norm.weight = mx.ones_like(model.network.audio_adaptor.norm.weight)


def keys_and_queries_swapped(_: pytest.MonkeyPatch, model: Any) -> None:
    layer = model.network.audio_adaptor.layers[1]
    q, k, v = mx.split(layer.in_proj.weight, 3)
    layer.in_proj.weight = mx.concatenate([k, q, v])


def other_heads(_: pytest.MonkeyPatch, model: Any) -> None:
    for layer in model.network.audio_adaptor.layers:
        layer._heads = 4


def scaled_features(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.audio_encoder._input_scale = ENCODER.width**0.5


def scaled_samples(_: pytest.MonkeyPatch, model: Any) -> None:
    model.frontend = FlooredFrontend(model.config.frontend, is_scaled=True)


def exact_filters(_: pytest.MonkeyPatch, model: Any) -> None:
    from funasr_cli.features.fbank import mel_filters

    model.frontend._filters = mx.array(mel_filters(80, 512, 16000))


def the_other_suffix(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    tasks = FORMATS[CURRENT]
    monkeypatch.setitem(tasks, "transcribe", tasks["transcribe"]._replace(after=tasks["translate"].after))


MUTATIONS = {  # mutation -> the check that must detect it
    pre_norm: "adaptor", approximate_gelu: "adaptor", relu: "adaptor", another_epsilon: "adaptor",
    no_last_norm: "adaptor", keys_and_queries_swapped: "adaptor", other_heads: "adaptor",
    scaled_features: "encoder", scaled_samples: "features", exact_filters: "features", the_other_suffix: "logits",
}  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mutations_are_noticed(reference: Reference, monkeypatch: pytest.MonkeyPatch, mutate: Any) -> None:
    model, check = load_qwen4b(reference.model), CHECKS[MUTATIONS[mutate]]
    check(reference, model, "zh")
    mutate(monkeypatch, model)
    with pytest.raises(AssertionError):
        check(reference, model, "zh")
