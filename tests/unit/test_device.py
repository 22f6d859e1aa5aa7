"""What is chosen for the machine, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.running import invoke

from funasr_cli import demo, device, measure
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
    ("found", "gflops", "slow"),
    [
        (True, 200.0, False),
        (True, 4.0, True),  # opened, and without effect
        (False, 200.0, True),
        (True, None, False),  # not measured
        (False, None, True),
    ],
)
def test_when_it_is_slow(found: bool, gflops: float | None, slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "lacks_blas", lambda: not found)
    assert is_slow(gflops) is slow


@pytest.mark.parametrize(
    ("ticks", "products_s", "fastest_s"),
    [
        ([0.0], [8.0, 0.005, 0.004, 0.005, 0.005], 0.004),  # the first does not count
        ([0.0, 9.0], [8.0, 0.05, 0.04, 0.05, 0.05], 0.04),  # slow, and no time left
        ([0.0, 0.2], [0.1, 0.05, 0.06, 0.05, 0.05, 0.004], 0.004),  # what seems slow may be waiting for others
    ],
)
def test_how_long_a_machine_is_probed(
    ticks: list[float], products_s: list[float], fastest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, processor = iter(ticks), iter([time for product_s in products_s for time in (0.0, product_s)])
    times = SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: next(processor))
    monkeypatch.setattr(device, "time", times)
    monkeypatch.setattr(device, "on_accelerator", lambda: False)
    assert gflops_a_core() == pytest.approx(2e-9 * 256 * 512**2 / fastest_s)
    assert next(clock, None) is next(processor, None) is None


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
    assert bool(device.slowness(None)) is not bool(blas)  # without a measurement, only what was not found shows


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
    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    result = invoke("transcribe", "-m", "demo", demo.clips()[0].path)
    result.assert_error(5, "memory-short", str(MODEL), "--dtype stored")
