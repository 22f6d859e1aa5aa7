"""`funasr convert ID`, with and without `--hub ms`, where hubs are alike; servers on this machine play them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from support.hub_client import NEEDED, convert, names
from support.hub_client import fetch as fetch_only
from support.hub_server import MAIN, OLDER, Hub, ModelScopeHub, Repository, serving
from support.running import Result
from support.small import MakeCheckpoint

KINDS = {"hf": Hub, "ms": ModelScopeHub}
UNNEEDED = (
    "model.py", "requirements.txt", "example/zh.mp3", "model.onnx", "model.pt.ep1", ".gitattributes",
    ".hidden/config.json",
)  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def hub(checkpoint: Path, kind: str) -> Iterator[Repository]:
    for name in UNNEEDED:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"not needed")
    with serving(KINDS[kind](checkpoint)) as served:
        yield served


def ask(home: Path, hub: Repository, *arguments: str, **env: str) -> Result:
    """`funasr convert owner/model` from this hub."""
    name = {Hub: "hf", ModelScopeHub: "ms"}[type(hub)]
    return convert(home, hub.url, *(arguments or ("owner/model",)), "--hub", name, **env)


@pytest.mark.slow
def test_conversion(hub: Repository, kind: str, make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """Hub and commit are recorded; no client draws or logs anything, and the variable does for the option."""
    hub.files = type(hub)(make_checkpoint(with_ctc=True)).files
    result = convert(tmp_path, hub.url, "owner/model", FUNASR_HUB=kind)
    out = tmp_path / "home/models/owner/model"
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, *notes = result.stderr.splitlines()
    assert (first, len(notes)) == ("downloading owner/model", 5)
    source = json.loads((out / "config.json").read_text())["source"]
    assert (source["hub"], source["source"], source["revision"]) == (kind, "owner/model", MAIN)
    with safe_open(out / "model.safetensors", "np") as file:
        metadata = file.metadata() or {}
    assert (metadata["hub"], metadata["revision"]) == (kind, MAIN)
    assert f"- Source: owner/model, revision {MAIN}\n" in (out / "README.md").read_text()
    ask(tmp_path, hub).assert_error(1, "output-exists", str(out))


@pytest.mark.parametrize(("revision", "commit"), [("", MAIN), ("v1", OLDER), (OLDER, OLDER)])
def test_what_comes_and_what_pins_it(
    hub: Repository, kind: str, tmp_path: Path, revision: str, commit: str
) -> None:
    folder, recorded, name = fetch_only(tmp_path, hub, revision)
    assert (names(folder), recorded, name) == (NEEDED, commit, kind)
    assert len(hub.downloaded) == len(NEEDED)


def test_what_is_there_needs_no_network(hub: Repository, kind: str, tmp_path: Path) -> None:
    """It is not downloaded again, either; Hugging Face's client keeps what two revisions have once."""
    first = fetch_only(tmp_path, hub)
    hub.downloaded.clear()
    assert fetch_only(tmp_path, hub) == first
    assert hub.downloaded == []
    hub.fault = (503, "")
    assert fetch_only(tmp_path, hub) == first
    if kind == "hf":
        assert fetch_only(tmp_path, hub, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9") == first
    hub.fault = None
    assert fetch_only(tmp_path, hub, "v1")[1] == OLDER
    assert ("model.pt" in hub.downloaded) == (kind == "ms")


def test_token(hub: Repository, tmp_path: Path) -> None:
    fetch_only(tmp_path, hub, HF_TOKEN="secret", MODELSCOPE_API_TOKEN="secret")
    assert "Bearer secret" in hub.authorization


@pytest.mark.parametrize(
    ("typed", "fault", "exit_code", "code"),
    [
        ("owner/model", (401, "RepoNotFound"), 3, "hub-missing"),
        ("owner/model", (500, ""), 5, "hub-unreachable"),
        ("owner/model", None, 5, "hub-unreachable"),
        ("owner/nothing", None, 3, "hub-missing"),
        ("owner/model --revision v9", None, 3, "revision-missing"),
        (f"owner/model --revision {40 * 'f'}", None, 3, "revision-missing"),
    ],
)
def test_answers_of_a_hub(
    hub: Repository, tmp_path: Path, typed: str, fault: tuple[int, str] | None, exit_code: int, code: str
) -> None:
    """The third one is nonsense."""
    hub.fault = fault
    if code == "hub-unreachable" and not fault:
        hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    ask(tmp_path, hub, *typed.split()).assert_error(exit_code, code, *typed.replace("--revision ", "").split())


def test_no_checkpoint_in_it(hub: Repository, tmp_path: Path) -> None:
    del hub.files["model.pt"]
    ask(tmp_path, hub).assert_error(3, "weights-missing", "owner/model", "model.pt")
    assert hub.downloaded == []


def test_no_room_for_the_download(hub: Repository, tmp_path: Path) -> None:
    """Nothing is begun."""
    hub.stated_bytes = 10**15
    ask(tmp_path, hub).assert_error(1, "disk-full", "the download of owner/model needs 1,000,000,")
    assert hub.downloaded == []


def test_a_cache_that_is_a_file(hub: Repository, tmp_path: Path) -> None:
    """The variable is named, not the hub."""
    (tmp_path / "file").touch()
    result = ask(tmp_path, hub, HF_HOME=str(tmp_path / "file"), MODELSCOPE_CACHE=str(tmp_path / "file"))
    result.assert_error(1, "output-unwritable", str(tmp_path / "file"))
    assert ("HF_HOME" if type(hub) is Hub else "MODELSCOPE_CACHE") in result.stderr


def test_fewer_bytes_than_announced(hub: Repository, tmp_path: Path) -> None:
    """What does not add up is not kept: the next run starts over."""
    hub.omits_bytes = 10
    ask(tmp_path, hub).assert_error(5, "download-failed", "owner/model")
    hub.omits_bytes = 0
    hub.ranges.clear()
    fetch_only(tmp_path, hub)
    assert hub.ranges == [""]
