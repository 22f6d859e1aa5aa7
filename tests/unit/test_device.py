"""What is chosen for the machine, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from funasr_cli import device, measure
from funasr_cli.backend import mx
from funasr_cli.checkpoints.load import load_model
from funasr_cli.demo import MODEL
from funasr_cli.device import gflops_a_core, is_slow, keep_in_memory, refuse_too_large, use_device
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


@pytest.mark.parametrize(
    ("found", "ticks", "work", "fastest_s"),
    [
        # Three products are enough where one takes longer than the time for all; the first does not count.
        (True, [0.0, 9.0], [0.0, 8.0, 8.0, 8.05, 8.05, 8.09], 0.04),
        # What is fast is known after 20 ms.
        (True, [0.0, 0.01, 0.03], [0.0, 0.008, 0.1, 0.105, 0.2, 0.204, 0.3, 0.304], 0.004),
        # What seems slow may be waiting for others.
        (True, [0.0, 0.2, 0.3], [0.0, 0.1, 0.2, 0.25, 0.3, 0.36, 0.4, 0.404], 0.004),
        # MLX's own does not become another one.
        (False, [0.0, 0.2], [0.0, 0.1, 0.2, 0.25, 0.3, 0.36], 0.05),
    ],
)
def test_how_long_a_machine_is_probed(
    found: bool, ticks: list[float], work: list[float], fastest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, processor = iter(ticks), iter(work)
    times = SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: next(processor))
    monkeypatch.setattr(device, "time", times)
    monkeypatch.setattr(device, "on_accelerator", lambda: False)
    monkeypatch.setattr(device, "lacks_blas", lambda: not found)
    assert gflops_a_core() == pytest.approx(2e-9 * 256 * 512**2 / fastest_s)
    assert next(clock, None) is next(processor, None) is None


def test_a_gpu_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_accelerator", lambda: True)
    assert gflops_a_core() is None


@pytest.mark.parametrize(
    ("metal", "chosen", "limits"),
    [(True, True, [12_000_000_000]), (True, False, []), (False, True, []), (False, False, [])],
)
def test_memory_that_is_kept_in_place(
    metal: bool, chosen: bool, limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Metal alone, and not where the CPU has been chosen: that one has no such figure."""
    seen: list[int] = []
    monkeypatch.setattr(device, "on_accelerator", lambda: chosen)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 12e9})
    monkeypatch.setattr(mx, "set_wired_limit", seen.append)
    keep_in_memory()
    assert seen == limits


@pytest.mark.parametrize(
    ("info", "total", "there"),
    [
        ({"max_recommended_working_set_size": 12_000, "memory_size": 16_000}, 12_000, 11_000),
        ({"memory_size": 16_000}, 16_000, 15_000),
        ({"total_memory": 80_000, "free_memory": 70_000}, 80_000, 70_000),  # CUDA
    ],
)
def test_memory_of_a_gpu(info: dict[str, int], total: int, there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "on_accelerator", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1_000)
    assert (measure.total_bytes(), measure.available_bytes()) == (total, there)


@pytest.mark.parametrize(
    ("blas", "machine", "text"),
    [
        (
            None,
            "x86_64",
            "no fast BLAS found, so this takes many times as long as it needs: pip install mkl, or in",
        ),
        (None, "aarch64", "no fast BLAS found, so this takes many times as long as it needs: install OpenBLAS"),
        ("/usr/lib/libslow.so.0", "x86_64", "libslow.so.0 computes only 4 GFLOP/s a core, so this takes"),
    ],
)
def test_why_it_is_slow(blas: str | None, machine: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_accelerator", lambda: False)
    monkeypatch.setattr(device, "lacks_blas", lambda: not blas)
    monkeypatch.setattr(device, "BLAS", blas)
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    assert device.slowness(4.0).startswith(text)
    assert device.slowness(None) == ""


def test_models_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with both figures, by what the type asked for takes."""
    parameters = 3_709_728
    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    with pytest.raises(SetupError) as caught:
        load_model(MODEL)
    assert "takes 0.0 GB of memory, and 0.0 GB are at hand" in caught.value.message
    assert load_model(MODEL, "bfloat16").dtype == "bfloat16"
    refuse_too_large("exactly", [4 * 2_500_000], "")
    with pytest.raises(SetupError, match="a byte more: takes"):
        refuse_too_large("a byte more", [10_000_000, 1], "")
    assert 2 * parameters < 10_000_000 < 4 * parameters


def test_refused_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.running import Result, invoke

    from funasr_cli import demo

    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    clip: Path = demo.clips()[0].path
    assert invoke("transcribe", "-m", "demo", clip) == Result(
        5,
        "",
        f"error: {MODEL}: takes 0.0 GB of memory, and 0.0 GB are at hand\n"
        "  close other programs; --dtype stored takes less, and on a CPU much more time\n",
    )
