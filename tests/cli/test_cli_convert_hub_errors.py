"""`funasr convert` from a hub that lacks a model, is out of order or not there: exactly what is said."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import Hub, serving
from support.running import Result, funasr
from test_cli_convert_errors import LAYOUTS
from test_cli_errors import said
from test_cli_input_errors import LIBRARY, assert_ends

MIRROR = "HF_ENDPOINT names a mirror; --hub ms takes it from ModelScope, if that has it"


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


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("owner/none", "owner/none: not on the hub, or private", "check the spelling, or set HF_TOKEN"),
        ("owner/model --revision v9", "owner/model: no revision v9", "name a branch, tag or commit"),
    ],
)
def test_what_the_hub_does_not_have(typed: str, message: str, hint: str, hub: Hub, tmp_path: Path) -> None:
    assert from_hub(hub.url, tmp_path, *typed.split()) == Result(3, "", said(message, hint))


def test_a_hub_that_answers_nonsense(hub: Hub, tmp_path: Path) -> None:
    hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    stderr = said(f"owner/model: {hub.url} is out of order ({LIBRARY})", MIRROR)
    assert_ends(from_hub(hub.url, tmp_path, "owner/model"), 5, "", stderr)


def test_a_hub_that_is_out_of_order(hub: Hub, tmp_path: Path) -> None:
    """What it says itself may take several lines."""
    hub.fault = (500, "")
    result = from_hub(hub.url, tmp_path, "owner/model")
    result.assert_fails(5)
    assert result.stderr.startswith(f"error: owner/model: {hub.url} is out of order (")
    assert result.stderr.endswith(f")\n  {MIRROR}\n")


def test_no_hub(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening: nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        result = from_hub(url, tmp_path, "owner/model")
    assert_ends(result, 5, "", said(f"owner/model: {url} cannot be reached ({LIBRARY})", MIRROR))


def test_offline(tmp_path: Path) -> None:
    result = funasr("convert", "owner/model", tmp_path / "out", env={"HF_HOME": str(tmp_path / "cache")})
    message = "owner/model: not on this machine, and HF_HUB_OFFLINE forbids to download it"
    assert result == Result(5, "", said(message, "unset it, or name a folder"))


def test_a_repository_in_another_layout(hub: Hub, tmp_path: Path) -> None:
    """Named by where it lies on this machine."""
    other = hub.files["configuration.json"]
    hub.files = {"config.json": other, "model.safetensors": other}
    result = from_hub(hub.url, tmp_path, "owner/model", "--quiet")
    message = f"{tmp_path}/cache/{LIBRARY}/config.json: the model is None, not fun_asr_nano"
    assert_ends(result, 3, "", said(message, LAYOUTS))
