"""Whisper compared with Transformers' own code on a random checkpoint: features, encoder, logits and tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY
from support.parity.live import REPOSITORY, run_reference
from support.small import convert, once
from support.whisper import random_tensors, write_hf

from funasr_cli.audio.decode import load_audio
from funasr_cli.compute.backend import mx
from funasr_cli.families.load import load_model
from funasr_cli.options import TranscribeOptions

pytestmark = [pytest.mark.slow, pytest.mark.process]

ENGINES = ["mlx", *(["native"] if LIBRARY else [])]
SCRIPT = REPOSITORY / "tests/support/parity/record_whisper.py"
FORCED = {"en": [400, 370, 452, 7177], "zh": [25246, 22064], "noise": [1], "short": [50000, 13]}


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, zh_wav: Path, en_flac: Path
) -> tuple[Path, dict[str, Any]]:
    """The converted model, and what Transformers computes."""

    def make(folder: Path) -> None:
        source = write_hf(folder / "source", random_tensors(seed=1))
        convert(source, folder / "model", dtype="float32")
        clips = {
            "en": load_audio(en_flac, 16000).samples,
            "zh": load_audio(zh_wav, 16000).samples,
            "noise": np.random.default_rng(0).normal(0, 0.3, 480_000).astype(np.float32),
            "short": load_audio(zh_wav, 16000).samples[16000:17000],
        }
        np.savez(folder / "audio.npz", **clips)
        model: Any = load_model(folder / "model", "float32", "mlx")
        job = {
            "checkpoint": str(source), "audio": str(folder / "audio.npz"), "forced": FORCED,
            "prompt": model.prompt_ids(TranscribeOptions(language="de"), "de"),
            "never": list(model.vocabulary.never), "not_first": list(model.vocabulary.blank),
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "out.npz")

    folder = once(tmp_path_factory, "whisper-parity", make)
    audio, out = (dict(np.load(folder / name)) for name in ("audio.npz", "out.npz"))
    return folder / "model", out | {f"{name}/audio": clip for name, clip in audio.items()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clip", FORCED)
def test_every_stage(reference: tuple[Path, dict[str, Any]], clip: str, engine: str) -> None:
    folder, arrays = reference
    model: Any = load_model(folder, "float32", engine)
    samples, options = arrays[f"{clip}/audio"], TranscribeOptions(language="de", max_tokens=24)
    trace = model.trace(samples, options, [*FORCED[clip], 0])
    features = trace.stages["features"]
    assert np.abs(features - arrays[f"{clip}/exact_features"]).max() < 1e-5
    assert np.abs(features - arrays[f"{clip}/features"]).max() < 5e-5  # torch's float32, in the quietest bins
    assert np.abs(trace.stages["encoder"] - arrays[f"{clip}/encoder"]).max() < 1e-3
    expected = arrays[f"{clip}/logits"]
    assert np.abs(trace.logits - expected).max() < 1e-3 * np.ptp(expected)
    assert list(trace.token_ids) == arrays[f"{clip}/written"].tolist()


@pytest.mark.parametrize("mutation", ["attention", "positions", "order", "scale", "convolution", "cross", "gelu"])
def test_mutations_are_noticed(
    reference: tuple[Path, dict[str, Any]], mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliberate errors in the network exceed the tolerances."""
    from funasr_cli.models import whisper_decoder, whisper_encoder

    folder, arrays = reference
    model: Any = load_model(folder, "float32", "mlx")
    encoder, decoder = model.network.encoder, model.network.decoder
    if mutation == "attention":
        monkeypatch.setattr(whisper_encoder, "window_attention", lambda q, k, v: v)
    elif mutation == "cross":
        softmax = whisper_decoder.memory_attention
        monkeypatch.setattr(whisper_decoder, "memory_attention", lambda q, k, v: softmax(q * 1.05, k, v))
    elif mutation == "gelu":
        monkeypatch.setattr(whisper_encoder.nn, "gelu", whisper_encoder.nn.gelu_fast_approx)
    elif mutation == "scale":
        encoder.ln_post.weight = 1.01 * encoder.ln_post.weight
    elif mutation == "convolution":
        encoder.conv2.weight = encoder.conv2.weight[:, ::-1]
    elif mutation == "positions":
        decoder.positional_embedding = mx.roll(decoder.positional_embedding, 1, axis=0)
    else:
        encoder.positional_embedding = mx.roll(encoder.positional_embedding, 64, axis=1)
    options = TranscribeOptions(language="de", max_tokens=1)
    trace = model.trace(arrays["en/audio"], options, [*FORCED["en"], 0])
    wrong_encoder = np.abs(trace.stages["encoder"] - arrays["en/encoder"]).max() >= 1e-3
    expected = arrays["en/logits"]
    assert wrong_encoder or np.abs(trace.logits - expected).max() >= 1e-3 * np.ptp(expected)
