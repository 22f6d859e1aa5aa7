"""`funasr convert` from a hub that lacks a model, is out of order or not there: exit code, and what is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import Hub, serving
from support.running import Result, funasr


@pytest.fixture
def hub(small_checkpoint: Path) -> Iterator[Hub]:
    with serving(Hub(small_checkpoint)) as served:
        yield served


def from_hub(url: str, folder: Path, *arguments: str) -> Result:
    env = {
        "HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "FUNASR_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    result = funasr("convert", *arguments, env=env)
    assert not (folder / "home").exists()
    return result


@pytest.mark.parametrize("typed", ["owner/none", "owner/model --revision v9"])
def test_what_the_hub_does_not_have(typed: str, hub: Hub, tmp_path: Path) -> None:
    from_hub(hub.url, tmp_path, *typed.split()).assert_fails(3, "error", *typed.replace("--revision ", "").split())


@pytest.mark.parametrize("answer", ["nonsense", "an error"])
def test_a_hub_that_is_out_of_order(answer: str, hub: Hub, tmp_path: Path) -> None:
    """What it says itself may take several lines."""
    if answer == "nonsense":
        hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    else:
        hub.fault = (500, "")
    from_hub(hub.url, tmp_path, "owner/model").assert_fails(5, "error", "owner/model", hub.url, "--hub ms")


def test_no_hub(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening: nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        from_hub(url, tmp_path, "owner/model").assert_fails(5, "error", "owner/model", url, "--hub ms")


def test_offline(tmp_path: Path) -> None:
    result = funasr("convert", "owner/model", tmp_path / "out", env={"HF_HOME": str(tmp_path / "cache")})
    result.assert_fails(5, "error", "owner/model", "HF_HUB_OFFLINE")


def test_a_repository_in_another_layout(hub: Hub, tmp_path: Path) -> None:
    """Named by where it lies on this machine."""
    other = hub.files["configuration.json"]
    hub.files = {"config.json": other, "model.safetensors": other}
    result = from_hub(hub.url, tmp_path, "owner/model", "--quiet")
    result.assert_error(3, "model-unsupported", f"{tmp_path}/cache/", "config.json", "--explain")
