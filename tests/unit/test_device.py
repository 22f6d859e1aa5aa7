"""What is chosen for the machine, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from funasr_cli import device
from funasr_cli.backend import mx
from funasr_cli.checkpoints.load import load_model
from funasr_cli.demo import MODEL
from funasr_cli.device import gflops_a_core, is_slow, refuse_too_large, use_device
from funasr_cli.errors import SetupError


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda device: device == mx.Device(mx.cpu))
    before = mx.default_device()
    use_device("cpu")
    assert mx.default_device() == mx.Device(mx.cpu)
    mx.set_default_device(before)
    with pytest.raises(SetupError, match="MLX cannot compute on the gpu here"):
        use_device("gpu")
    assert mx.default_device() == before


@pytest.mark.parametrize(
    ("accelerator", "found", "gflops", "slow"),
    [
        (False, True, 200.0, False),
        (False, True, 4.0, True),  # opened, and without effect
        (False, False, 200.0, True),
        (True, False, None, False),  # of no consequence
    ],
)
def test_when_it_is_slow(
    accelerator: bool, found: bool, gflops: float | None, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "on_accelerator", lambda: accelerator)
    monkeypatch.setattr(device, "lacks_blas", lambda: not found)
    assert is_slow(gflops) is slow


def test_a_slow_machine_is_not_probed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One product is enough where it takes longer than the time for all."""
    ticks, work = iter([0.0, 0.08]), iter([1.0, 1.04])
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(device.time, "process_time", lambda: next(work))
    assert gflops_a_core() == pytest.approx(2e-9 * 256 * 512**2 / 0.04)
    monkeypatch.setattr(device, "on_accelerator", lambda: True)
    assert gflops_a_core() is None


def test_models_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with both figures, by what the type asked for takes."""
    parameters = 3_709_728
    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    with pytest.raises(SetupError) as caught:
        load_model(MODEL)
    assert "takes 0.0 GB of memory, and 0.0 GB are at hand" in caught.value.message
    assert load_model(MODEL, "bfloat16").dtype == "bfloat16"
    refuse_too_large("exactly", [4 * 2_500_000])
    with pytest.raises(SetupError, match="a byte more: takes"):
        refuse_too_large("a byte more", [10_000_000, 1])
    assert 2 * parameters < 10_000_000 < 4 * parameters


def test_refused_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from running import Result, invoke

    from funasr_cli import demo

    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    clip: Path = demo.clips()[0].path
    assert invoke("transcribe", "-m", "demo", clip) == Result(
        5,
        "",
        f"error: {MODEL}: takes 0.0 GB of memory, and 0.0 GB are at hand\n"
        "  close other programs; --dtype stored takes less, and on a CPU much more time\n",
    )
