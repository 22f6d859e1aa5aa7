"""`funasr convert ID --hub ms`: ModelScope, as a server on this machine plays it."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import NEEDED, convert, convert_on_a_full_disk, fetch, names
from support.hub_server import MAIN, OLDER, ModelScopeHub, serving
from support.running import PYTHON, Result, invoke
from support.small import MakeCheckpoint

AGAIN = "  run it again: it goes on where it stopped\n"
HINT = "MODELSCOPE_ENDPOINT names another site; --hub hf takes it from Hugging Face, if that has it"


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[ModelScopeHub]:
    (checkpoint / "example").mkdir()
    (checkpoint / "example/zh.mp3").write_bytes(b"not needed")
    (checkpoint / "model.py").write_bytes(b"not needed")
    with serving(ModelScopeHub(checkpoint)) as served:
        yield served


def ms(home: Path, hub: ModelScopeHub, *arguments: str, **env: str) -> Result:
    return convert(home, hub.url, "owner/model", "--hub", "ms", *arguments, **env)


@pytest.mark.slow
def test_conversion(hub: ModelScopeHub, make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """From the environment, too; hub and commit are recorded, no client draws or logs anything."""
    hub.files = ModelScopeHub(make_checkpoint(with_ctc=True)).files
    result = convert(tmp_path, hub.url, "owner/model", FUNASR_HUB="ms")
    out = tmp_path / "home/models/owner/model"
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, *notes = result.stderr.splitlines()
    assert first == "downloading owner/model"
    assert notes[2] == "CTC head, and so word times: yes"
    assert len(notes) == 5
    source = json.loads((out / "config.json").read_text())["source"]
    assert (source["hub"], source["source"], source["revision"]) == ("ms", "owner/model", MAIN)
    again = convert(tmp_path, hub.url, "owner/model")
    forced = "pass --force to replace it, or name another folder"
    assert again == Result(1, "", f"error: {out}: exists already, from ModelScope\n  {forced}\n")


@pytest.mark.parametrize(("revision", "commit"), [("", MAIN), ("v1", OLDER), (OLDER, OLDER)])
def test_what_comes_and_what_pins_it(hub: ModelScopeHub, tmp_path: Path, revision: str, commit: str) -> None:
    """The listing tells only which commit changed each file last."""
    folder, recorded, name = fetch(tmp_path, hub, revision)
    assert (names(folder), recorded, name) == (NEEDED, commit, "ms")
    assert len(hub.downloaded) == len(NEEDED)


def test_a_commit_that_cannot_be_asked_for_is_none(hub: ModelScopeHub, tmp_path: Path) -> None:
    hub.knows_commits = False
    assert fetch(tmp_path, hub)[1] == "master"


def test_nothing_is_kept_in_the_users_home(hub: ModelScopeHub, tmp_path: Path) -> None:
    """No id that lasts, as the client would by itself."""
    fetch(tmp_path, hub)
    assert not (tmp_path / "ms-home").exists()


def test_what_is_there_is_not_downloaded_again(hub: ModelScopeHub, tmp_path: Path) -> None:
    first = fetch(tmp_path, hub)
    hub.downloaded.clear()
    assert fetch(tmp_path, hub) == first
    assert hub.downloaded == []


def test_what_funasr_has_downloaded_is_used(hub: ModelScopeHub, checkpoint: Path, tmp_path: Path) -> None:
    """It keeps models where earlier clients did."""
    earlier = tmp_path / "ms-cache/hub/models/owner/model"
    shutil.copytree(checkpoint, earlier)
    folder, commit, _ = fetch(tmp_path, hub)
    assert (folder, commit, hub.downloaded) == (earlier, MAIN, [])


def test_unreachable(hub: ModelScopeHub, tmp_path: Path) -> None:
    """What the cache has will do."""
    first = fetch(tmp_path, hub)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, never listening: nobody else gets the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert fetch(tmp_path, hub, MODELSCOPE_ENDPOINT=url) == first
        result = ms(tmp_path, hub, MODELSCOPE_ENDPOINT=url, MODELSCOPE_CACHE=str(tmp_path / "empty"))
    assert result == Result(5, "", f"error: owner/model: {url} cannot be reached (Connection refused)\n  {HINT}\n")


def test_unknown_id(hub: ModelScopeHub, tmp_path: Path) -> None:
    result = convert(tmp_path, hub.url, "owner/nothing", "--hub", "ms")
    hint = "check the spelling, or set MODELSCOPE_API_TOKEN"
    assert result == Result(3, "", f"error: owner/nothing: not on ModelScope, or private\n  {hint}\n")


@pytest.mark.parametrize("status", [401, 403])
def test_private(hub: ModelScopeHub, tmp_path: Path, status: int) -> None:
    hub.fault = (status, "")
    ms(tmp_path, hub).assert_fails(3, "error: owner/model: not on ModelScope, or private\n")


def test_token(hub: ModelScopeHub, tmp_path: Path) -> None:
    fetch(tmp_path, hub, MODELSCOPE_API_TOKEN="ms-secret")
    assert "Bearer ms-secret" in hub.authorization


@pytest.mark.parametrize("revision", ["v9", "main", "f" * 40])
def test_unknown_revision(hub: ModelScopeHub, tmp_path: Path, revision: str) -> None:
    result = ms(tmp_path, hub, "--revision", revision)
    message = f"error: owner/model: no revision {revision}\n  ModelScope has v1, master\n"
    assert result == Result(3, "", message)


def test_hub_that_answers_nonsense(hub: ModelScopeHub, tmp_path: Path) -> None:
    hub.answer = lambda path: (200, b"<html>", {})  # type: ignore[method-assign]
    told = f"error: owner/model: {hub.url} is out of order (Expecting value: line 1 column 1 (char 0))\n  {HINT}\n"
    assert ms(tmp_path, hub) == Result(5, "", told)


def test_hub_out_of_order(hub: ModelScopeHub, tmp_path: Path) -> None:
    hub.fault = (500, "")
    ms(tmp_path, hub).assert_fails(
        5, f"error: owner/model: {hub.url} is out of order (HTTP 500 on GET /api/v1/", HINT
    )


def test_a_lost_connection_costs_nothing(hub: ModelScopeHub, tmp_path: Path) -> None:
    """A second run goes on with the byte after the last one that has come."""
    size = hub.files["model.pt"].stat().st_size
    hub.breaks_after = 70_000
    why = f"IncompleteRead(70000 bytes read, {size - 70_000} more expected)"
    told = f"downloading owner/model\nerror: owner/model: the download of model.pt failed ({why})\n{AGAIN}"
    assert ms(tmp_path, hub) == Result(5, "", told)
    hub.fault = hub.breaks_after = None
    hub.ranges.clear()
    folder, *_ = fetch(tmp_path, hub)
    assert hub.ranges == ["bytes=70000-"]
    assert (folder / "model.pt").read_bytes() == hub.files["model.pt"].read_bytes()


def test_fewer_bytes_than_announced(hub: ModelScopeHub, tmp_path: Path) -> None:
    size = hub.files["model.pt"].stat().st_size
    hub.omits_bytes = 10
    told = f"Server announced {size - 10} bytes for model.pt but the repository lists {size} bytes"
    ms(tmp_path, hub).assert_fails(5, f"error: owner/model: the download of model.pt failed ({told}", AGAIN)
    hub.omits_bytes = 0
    hub.ranges.clear()
    fetch(tmp_path, hub)
    assert hub.ranges == [""]


def test_a_way_out_of_the_folder(hub: ModelScopeHub, tmp_path: Path) -> None:
    """A listing can name any path; those that lead elsewhere are not files of a checkpoint."""
    for name in ("../config.json", "../../../config.json", "/config.json", ".hidden/config.json"):
        hub.files[name] = hub.files["config.yaml"]
    folder, *_ = fetch(tmp_path, hub)
    assert names(folder) == NEEDED
    assert hub.downloaded.count("config.json") == 1  # Qwen3-0.6B's


def test_no_room_for_the_download(hub: ModelScopeHub, tmp_path: Path) -> None:
    result = convert_on_a_full_disk(tmp_path, hub, "owner/model", "--hub", "ms")
    needed = sum(hub.files[name].stat().st_size for name in NEEDED)
    hint = "make room there, or let MODELSCOPE_CACHE name a folder on another disk"
    message = f"the download of owner/model needs {needed / 1e6:,.1f} MB, 0.0 MB are free"
    assert result == Result(1, "", f"error: {tmp_path}: {message}\n  {hint}\n")
    assert hub.downloaded == []


def test_client_missing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['modelscope_hub'] = None; import importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'modelscope_hub' else find(name, *rest); "
        "from funasr_cli.__main__ import main; main()"
    )
    command = [PYTHON, "-c", code, "convert", "nano", str(tmp_path / "out"), "--hub", "ms"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    install = "pip install 'funasr-cli[modelscope]'"
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"error: --hub ms needs modelscope-hub\n  {install}\n"


def test_unknown_hub() -> None:
    result = invoke("convert", "nano", "--hub", "gh")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Invalid value for '--hub': 'gh' is not one of 'hf', 'ms'.")


def test_a_local_folder_belongs_to_no_hub(checkpoint: Path, tmp_path: Path) -> None:
    """FUNASR_HUB may stand for good."""
    out = tmp_path / "out"
    result = invoke("convert", checkpoint, out, "--quiet", "--verify", "off", env={"FUNASR_HUB": "ms"})
    assert result == Result(0, f"{out}\n", "")
    assert json.loads((out / "config.json").read_text())["source"]["hub"] is None
