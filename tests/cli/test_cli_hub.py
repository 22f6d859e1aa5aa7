"""`funasr convert ID`: downloads, through a hub on this machine."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from support.hub_client import convert
from support.hub_server import MAIN, OLDER, Hub, serving
from support.running import Result

HINT = "HF_ENDPOINT names a mirror; --hub ms takes it from ModelScope, if that has it"


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    (checkpoint / "example").mkdir()
    (checkpoint / "example/zh.mp3").write_bytes(b"not needed")
    with serving(Hub(checkpoint)) as served:
        yield served


@pytest.mark.parametrize(
    ("options", "commit"),
    [
        pytest.param((), MAIN, marks=pytest.mark.slow),
        (("--revision", "v1"), OLDER),
        pytest.param(("--revision", OLDER), OLDER, marks=pytest.mark.slow),
    ],
)
def test_download(hub: Hub, tmp_path: Path, options: tuple[str, ...], commit: str) -> None:
    """The files that are needed, and the commit in what is written; no bars in a pipe."""
    result = convert(tmp_path, hub.url, "owner/model", *options)
    out = tmp_path / "home/models/owner/model"
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert result.stderr.startswith("downloading owner/model\n87 tensors in the layout of FunASR, ")
    assert "\r" not in result.stderr
    assert "model.pt" in hub.downloaded
    assert "zh.mp3" not in hub.downloaded
    source = json.loads((out / "config.json").read_text())["source"]
    assert (source["hub"], source["source"], source["revision"]) == ("hf", "owner/model", commit)
    with safe_open(out / "model.safetensors", "np") as file:
        metadata = file.metadata() or {}
    assert (metadata["hub"], metadata["revision"]) == ("hf", commit)
    assert f"- Source: owner/model, revision {commit}\n" in (out / "README.md").read_text()


@pytest.mark.slow
def test_what_is_there_is_not_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    assert convert(tmp_path, hub.url, "owner/model", str(tmp_path / "a")).exit_code == 0
    hub.downloaded.clear()
    assert convert(tmp_path, hub.url, "owner/model", str(tmp_path / "b")).exit_code == 0
    assert hub.downloaded == []


def test_unknown_id(hub: Hub, tmp_path: Path) -> None:
    result = convert(tmp_path, hub.url, "owner/nothing")
    result.assert_fails(
        3, "error: owner/nothing: not on the hub, or private\n  check the spelling, or set HF_TOKEN\n"
    )


def test_unknown_revision(hub: Hub, tmp_path: Path) -> None:
    result = convert(tmp_path, hub.url, "owner/model", "--revision", "v9")
    result.assert_fails(3, "error: owner/model: no revision v9\n  name a branch, tag or commit\n")


def test_gated(hub: Hub, tmp_path: Path) -> None:
    hub.fault = (403, "GatedRepo")
    convert(tmp_path, hub.url, "owner/model").assert_fails(3, "owner/model: not on the hub, or private")


def test_hub_that_answers_nonsense(hub: Hub, tmp_path: Path) -> None:
    hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    why = "Expecting value: line 1 column 1 (char 0)"
    told = f"error: owner/model: {hub.url} is out of order ({why})\n  {HINT}\n"
    assert convert(tmp_path, hub.url, "owner/model") == Result(5, "", told)


def test_unreachable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening: nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        result = convert(tmp_path, url, "owner/model")
    assert result == Result(5, "", f"error: owner/model: {url} cannot be reached (Connection refused)\n  {HINT}\n")


@pytest.mark.parametrize("endpoint", ["not a url", "ftp://example.invalid"])
def test_bad_endpoint(tmp_path: Path, endpoint: str) -> None:
    convert(tmp_path, endpoint, "owner/model").assert_fails(5, "error: owner/model: ")


def test_repository_in_another_layout(hub: Hub, tmp_path: Path) -> None:
    hub.files = {name: path for name, path in hub.files.items() if name != "config.yaml"}
    convert(tmp_path, hub.url, "owner/model").assert_fails(
        3, f"/snapshots/{MAIN}/config.yaml: missing\n  FunASR writes one beside model.pt: copy it, or "
    )
    assert not list((tmp_path / "home").glob("**/*.safetensors"))
