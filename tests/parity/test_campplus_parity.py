"""CAM++ compared with FunASR's own code: embeddings, alone and batched, with random and with real weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity.live import run_reference
from support.small import convert

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.families.load import load_speakers

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests/support/parity/record_campplus.py"
REAL = "REAL_CAMPPLUS"  # a folder with campplus_cn_common.bin or campplus_cn_en_common.pt
LENGTHS = (24000, 64000, 5200)  # samples: a window, more than one run of the context, a short clip
LEAST_COSINE = 0.99999


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def recorded(tmp_path: Path, weights: str) -> dict[str, Any]:
    """Return a folder with weights, and FunASR's embeddings of three batches of clips."""
    samples = np.concatenate([load_audio(clip.path, 16000).samples for clip in demo.clips()])
    clips = [np.stack([samples[k * 4000 :][:length] for k in range(3)]) for length in LENGTHS]
    np.savez(tmp_path / "clips.npz", *clips)
    job = {"weights": weights, "folder": str(tmp_path / "source"), "clips": str(tmp_path / "clips.npz")}
    out = tmp_path / "out.npz"
    (tmp_path / "job.json").write_text(json.dumps(job))
    run_reference(SCRIPT, tmp_path / "job.json", out)
    return {"source": tmp_path / "source", "clips": clips, "wanted": list(np.load(out).values())}


@pytest.mark.parametrize("weights", ["random", "real"])
def test_embeddings(tmp_path: Path, weights: str) -> None:
    if weights == "real" and not (folder := os.environ.get(REAL)):
        pytest.skip(f"{REAL} names no folder")
    found = recorded(tmp_path, weights if weights == "random" else folder)
    model = load_speakers(convert(found["source"], tmp_path / "exact", dtype="float32").folder)
    for clips, wanted in zip(found["clips"], found["wanted"], strict=True):
        batched = model.embed(clips)
        assert (cosines(batched, wanted) > 1 - 1e-6).all()
        assert np.allclose(np.linalg.norm(batched, axis=-1), np.linalg.norm(wanted, axis=-1), rtol=1e-3)
        assert (cosines(np.concatenate([model.embed(clip[None]) for clip in clips]), wanted) > 1 - 1e-6).all()
        assert not np.allclose(wanted[0], wanted[1], rtol=1e-2)
    half = load_speakers(convert(found["source"], tmp_path / "half").folder)
    assert (cosines(half.embed(found["clips"][0]), found["wanted"][0]) > LEAST_COSINE).all()
