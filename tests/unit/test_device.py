"""Choices for the machine's device, and refused devices."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.errors import refused
from support.running import invoke

from funasr_cli import demo
from funasr_cli.compute import device, memory
from funasr_cli.compute.backend import mx
from funasr_cli.compute.device import gflops_a_core, keep_in_memory, refuse_too_large, use_device
from funasr_cli.demo import MODEL
from funasr_cli.families.load import load_model


def test_a_missing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda device: device == mx.Device(mx.cpu))
    before = mx.default_device()
    use_device("cpu")
    assert mx.default_device() == mx.Device(mx.cpu)
    mx.set_default_device(before)
    with refused("device-missing", "gpu"):
        use_device("gpu")
    assert mx.default_device() == before


SLOW = "libslow.so.0 reaches only 4 GFLOP/s per core"


@pytest.mark.parametrize(
    ("blas", "gflops", "machine", "reason"),
    [
        ("/usr/lib/libslow.so.0", 200.0, "x86_64", ""),
        ("/usr/lib/libslow.so.0", None, "x86_64", ""),  # not measured
        ("/usr/lib/libslow.so.0", 4.0, "x86_64", SLOW),  # loaded, but without effect
        (None, 200.0, "x86_64", "no fast BLAS found, .*pip install mkl, or"),
        (None, None, "aarch64", "no fast BLAS found, .*: install OpenBLAS"),
    ],
)
def test_when_it_is_slow_and_why(
    blas: str | None, gflops: float | None, machine: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "lacks_blas", lambda: not blas)
    monkeypatch.setattr(device, "BLAS", blas)
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    assert re.match(reason or "$", device.slowness(gflops))


@pytest.mark.parametrize(
    ("ticks", "products_s", "fastest_s"),
    [
        ([0.0], [8.0, 0.005, 0.004, 0.005, 0.005], 0.004),  # the first one does not count
        ([0.0, 9.0], [8.0, 0.05, 0.04, 0.05, 0.05], 0.04),  # slow, and no time left
        ([0.0, 0.2], [0.1, 0.05, 0.06, 0.05, 0.05, 0.004], 0.004),  # an apparently slow machine may only be busy
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
    """The limit is set on Metal only, and not if the CPU was chosen, which reports no such figure."""
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
    monkeypatch.setattr(memory, "on_accelerator", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1_000)
    assert (memory.total_bytes(), memory.available_bytes()) == (total, there)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux's")
def test_memory_of_a_limited_process() -> None:
    """As with `ulimit -v`: what the process has mapped already is no longer available."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 600_000_000, before[1]))
    try:
        left = memory.available_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 500_000_000 < left <= 600_000_000


def test_models_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size follows from the requested type, for 3.7 million parameters."""
    monkeypatch.setattr(device, "available_bytes", lambda: 10_000_000)
    result = invoke("transcribe", "-m", "demo", demo.clips()[0].path, "--dtype", "float32")
    result.assert_error(5, "memory-short", str(MODEL), "--dtype stored")
    assert load_model(MODEL, "bfloat16").loaded.dtype == "bfloat16"
    refuse_too_large("exactly", [4 * 2_500_000], "")
    with refused("memory-short", "a byte more"):
        refuse_too_large("a byte more", [10_000_000, 1], "")
