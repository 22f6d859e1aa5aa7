"""Downloads with both hubs' clients, from local servers: what is fetched, what is cached, and errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.errors import refused
from support.hub_client import HUBS, NEEDED, Client, names
from support.hub_server import MAIN, OLDER, Hub, ModelScopeHub, Repository, serving

from funasr_cli.hubs.find import find_model

pytestmark = pytest.mark.slow
LENGTH = 12 << 20  # more than Hugging Face's client writes at once
UNNEEDED = (
    "model.py", "requirements.txt", "example/zh.mp3", "model.onnx", "model.pt.ep1", ".gitattributes",
    ".hidden/config.json",
)  # fmt: skip
hugging_face = pytest.mark.parametrize("client", ["hf"], indirect=True)
modelscope = pytest.mark.parametrize("client", ["ms"], indirect=True)


@pytest.fixture(params=HUBS)
def client(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(request.param, tmp_path, monkeypatch)


@pytest.fixture
def hub(checkpoint: Path, client: Client) -> Iterator[Repository]:
    for name in UNNEEDED:
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"not needed")
    with serving(HUBS[client.name](checkpoint)) as served:
        yield served


@pytest.mark.parametrize(("revision", "commit"), [(None, MAIN), ("v1", OLDER), (OLDER, OLDER)])
def test_files_and_commit(hub: Repository, client: Client, revision: str | None, commit: str) -> None:
    folder, recorded = client.fetch(hub.url, revision=revision)
    assert (names(folder), recorded) == (NEEDED, commit)
    assert len(hub.downloaded) == len(NEEDED)


def test_cached_files_need_no_network(hub: Repository, client: Client) -> None:
    """They are not downloaded again. Hugging Face's client stores files that two revisions share only once."""
    first = client.fetch(hub.url)
    hub.downloaded.clear()
    assert client.fetch(hub.url) == first
    assert hub.downloaded == []
    hub.fault = (503, "")
    assert client.fetch(hub.url) == first
    hub.fault, client.is_offline = None, client.name == "hf"
    assert client.fetch(hub.url) == first
    client.is_offline = False
    assert client.fetch(hub.url, revision="v1")[1] == OLDER
    assert ("model.pt" in hub.downloaded) == (client.name == "ms")


def test_token(hub: Repository, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv({"hf": "HF_TOKEN", "ms": "MODELSCOPE_API_TOKEN"}[client.name], "secret")
    client.fetch(hub.url)
    assert "Bearer secret" in hub.authorization


@pytest.mark.parametrize(
    ("hub_id", "revision", "fault", "code"),
    [
        ("owner/model", None, (401, "RepoNotFound"), "hub-missing"),
        ("owner/model", None, (500, ""), "hub-unreachable"),
        ("owner/model", None, None, "hub-unreachable"),  # the answer is invalid
        ("owner/nothing", None, None, "hub-missing"),
        ("owner/model", "v9", None, "revision-missing"),
        ("owner/model", 40 * "f", None, "revision-missing"),
    ],
)
def test_answers_of_a_hub(
    hub: Repository, client: Client, hub_id: str, revision: str | None, fault: tuple[int, str] | None, code: str
) -> None:
    hub.fault = fault
    if code == "hub-unreachable" and not fault:
        hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    with refused(code, hub_id, revision or ""):
        client.fetch(hub.url, hub_id, revision)


def test_a_repository_without_a_checkpoint(hub: Repository, client: Client) -> None:
    del hub.files["model.pt"]
    client.assert_refused(hub.url, "weights-missing", "owner/model", "model.pt")
    assert hub.downloaded == []


def test_no_room_for_the_download(hub: Repository, client: Client) -> None:
    """No download starts."""
    hub.stated_bytes = 10**15
    client.assert_refused(hub.url, "disk-full", "", "the download of owner/model needs 1000000")
    assert hub.downloaded == []


def test_a_cache_that_is_a_file(hub: Repository, client: Client) -> None:
    """The error names the variable, not the hub."""
    client.cache.touch()
    variable = {"hf": "HF_HOME", "ms": "MODELSCOPE_CACHE"}[client.name]
    client.assert_refused(hub.url, "output-unwritable", client.cache, variable)


def test_fewer_bytes_than_announced(hub: Repository, client: Client) -> None:
    """A file of the wrong size is not kept; the next run starts over."""
    hub.omits_bytes = 10
    client.assert_refused(hub.url, "download-failed", "owner/model")
    hub.omits_bytes = 0
    hub.ranges.clear()
    client.fetch(hub.url)
    assert hub.ranges == [""]


def test_a_connection_that_stays_lost(hub: Repository, client: Client) -> None:
    """The next run only fetches the incomplete file: again, or with ModelScope from the first missing byte."""
    hub.breaks_after, hub.stays_broken = 70_000, True
    hint = {"hf": "hf download", "ms": "owner/model/model.pt"}[client.name]
    client.assert_refused(hub.url, "download-failed", "owner/model", hint)
    assert client.name == "ms" or not list(client.cache.rglob("*incomplete"))
    hub.is_broken = hub.stays_broken = False
    hub.ranges.clear()
    hub.downloaded.clear()
    folder, _ = client.fetch(hub.url)
    assert hub.ranges == [{"hf": "", "ms": "bytes=70000-"}[client.name]]
    assert hub.downloaded == ["model.pt"]
    assert names(folder) == NEEDED
    assert (folder / "model.pt").read_bytes() == hub.files["model.pt"].read_bytes()


# --- only Hugging Face ---


@hugging_face
def test_a_connection_that_is_lost_once(hub: Hub, client: Client) -> None:
    """The client resumes within the run."""
    content = hub.files["model.pt"].read_bytes().ljust(LENGTH + (1 << 20), b"\0")
    hub.files["model.pt"].write_bytes(content)
    hub.breaks_after = LENGTH
    folder, commit = client.fetch(hub.url)
    assert (folder / "model.pt").read_bytes() == content
    assert commit == MAIN
    first, second = hub.ranges
    assert (first, second.startswith("bytes=")) == ("", True)


@hugging_face
def test_another_file_than_the_hub_lists(hub: Hub, client: Client) -> None:
    """It has the right size, but another SHA-256."""
    sha256 = hub.sha256
    hub.sha256 = lambda name: 64 * "e"  # type: ignore[method-assign]
    client.assert_refused(hub.url, "download-failed", "", "model.pt")
    assert not list(client.cache.rglob("model.pt"))
    hub.sha256 = sha256  # type: ignore[method-assign]
    assert names(client.fetch(hub.url)[0]) == NEEDED


@hugging_face
@pytest.mark.parametrize("begun", [False, True])
def test_offline_without_the_model(hub: Hub, client: Client, begun: bool) -> None:
    if begun:
        (client.fetch(hub.url)[0] / "model.pt").unlink()
    client.is_offline = True
    client.assert_refused(hub.url, "hub-offline", "owner/model", "only partly" if begun else "not on this machine")


@hugging_face
def test_a_published_conversion_is_used_from_the_cache(
    hub: Hub, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--model ID` needs neither a conversion nor a network. Safetensors take precedence over a pickle."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path / "home"))
    theirs = {
        "config.json": '{"model_type": "fun_asr_nano", "text_config": {"vocab_size": 9}}',
        "model.safetensors": "x",
    }
    for name, content in theirs.items():
        hub.files[name] = tmp_path / name
        hub.files[name].write_text(content)
    folder, _ = client.fetch(hub.url)
    assert "model.pt" not in hub.downloaded
    assert find_model("owner/model") == folder
    (folder / "model.safetensors").unlink()
    with refused("model-missing", "owner/model"):
        find_model("owner/model")


@hugging_face
def test_gated(hub: Hub, client: Client) -> None:
    """The error says where to agree to the terms."""
    hub.fault = (403, "GatedRepo")
    client.assert_refused(hub.url, "hub-gated", "owner/model", f"{hub.url}/owner/model", "HF_TOKEN")


# --- only ModelScope ---


@modelscope
def test_an_unknown_commit_is_not_recorded(hub: ModelScopeHub, client: Client) -> None:
    """The listing only gives the commit of each file's last change. The client stores no permanent id."""
    hub.knows_commits = False
    assert client.fetch(hub.url)[1] == "master"
    assert not (client.home / "ms-home").exists()


@modelscope
def test_funasrs_downloads_are_used(hub: ModelScopeHub, client: Client, checkpoint: Path) -> None:
    """FunASR stores models where earlier clients did."""
    earlier = client.cache / "hub/models/owner/model"
    shutil.copytree(checkpoint, earlier)
    assert client.fetch(hub.url) == (earlier, MAIN)
    assert hub.downloaded == []


@modelscope
@pytest.mark.parametrize("status", [401, 403])
def test_private(hub: ModelScopeHub, client: Client, status: int) -> None:
    hub.fault = (status, "")
    client.assert_refused(hub.url, "hub-missing", "owner/model", "set MODELSCOPE_API_TOKEN")
