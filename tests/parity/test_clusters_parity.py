"""FunASR's method of telling speakers apart, compared with FunASR's own code: the label of every window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.parity.live import REPOSITORY, run_reference

from funasr_cli.funasr_clusters import MANY_WINDOWS, cluster

pytestmark = pytest.mark.slow

SCRIPT = REPOSITORY / "tests/support/parity/record_clusters.py"


def talk(windows: int, voices: int, noise: float, seed: int = 0) -> np.ndarray:
    """Return embeddings (windows, width) of voices that take turns of seven windows."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(voices, 192))
    return (centres[np.arange(windows) // 7 % voices] + noise * draw.normal(size=(windows, 192))).astype(
        np.float32
    )


def compare(cases: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Compare all labels, and return how many speakers there are in each case."""
    pytest.importorskip("sklearn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as here; FunASR's labels may depend on it
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    np.savez(tmp_path / "cases.npz", **cases)
    run_reference(SCRIPT, tmp_path / "cases.npz", tmp_path / "out.npz")
    wanted, counts = np.load(tmp_path / "out.npz"), {}
    for name, vectors in cases.items():
        found = cluster(vectors, int(name.rpartition("-")[2]) or None)
        assert found.tolist() == wanted[name].tolist(), name
        counts[name] = len(set(found.tolist()))
    return counts


def test_spectral_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few windows, found and given numbers, speakers who are merged, and many windows with a given number."""
    alike = talk(60, 2, 1.0)
    alike[:, :96] += 3 * np.sign(alike[0, :96])
    cases = {
        "few-2": talk(19, 2, 1.0),
        "two-0": talk(21, 2, 1.2),
        "four-0": talk(120, 4, 2.0),
        "four-4": talk(120, 4, 2.0),
        "noise-0": talk(90, 1, 5.0),
        "noise-3": talk(90, 1, 5.0),
        "alike-0": alike,
        "many-3": talk(MANY_WINDOWS, 3, 2.0),
    }
    counts = compare(cases, tmp_path, monkeypatch)
    assert (counts["few-2"], counts["two-0"], counts["four-0"], counts["noise-3"]) == (1, 2, 4, 3)


@pytest.mark.full
def test_dense_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("umap")
    assert compare({"many-0": talk(MANY_WINDOWS, 3, 2.0)}, tmp_path, monkeypatch) == {"many-0": 3}
