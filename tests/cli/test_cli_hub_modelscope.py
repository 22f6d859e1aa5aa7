"""`funasr convert ID --hub ms`: what is ModelScope's alone, as a server on this machine plays it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import convert, fetch, surroundings
from support.hub_server import MAIN, ModelScopeHub, serving
from support.running import COMMAND, PYTHON, Result, environment, invoke


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[ModelScopeHub]:
    with serving(ModelScopeHub(checkpoint)) as served:
        yield served


def ms(home: Path, hub: ModelScopeHub, *arguments: str, **env: str) -> Result:
    return convert(home, hub.url, "owner/model", "--hub", "ms", *arguments, **env)


def test_a_commit_that_cannot_be_asked_for_is_none(hub: ModelScopeHub, tmp_path: Path) -> None:
    """The listing tells only which commit changed each file last. The client leaves no id that lasts."""
    hub.knows_commits = False
    assert fetch(tmp_path, hub)[1] == "master"
    assert not (tmp_path / "ms-home").exists()


def test_what_funasr_has_downloaded_is_used(hub: ModelScopeHub, checkpoint: Path, tmp_path: Path) -> None:
    """It keeps models where earlier clients did."""
    earlier = tmp_path / "ms-cache/hub/models/owner/model"
    shutil.copytree(checkpoint, earlier)
    folder, commit, _ = fetch(tmp_path, hub)
    assert (folder, commit, hub.downloaded) == (earlier, MAIN, [])


@pytest.mark.parametrize("status", [401, 403])
def test_private(hub: ModelScopeHub, tmp_path: Path, status: int) -> None:
    hub.fault = (status, "")
    ms(tmp_path, hub).assert_error(3, "hub-missing", "owner/model", "set MODELSCOPE_API_TOKEN")


def test_a_lost_connection_costs_nothing(hub: ModelScopeHub, tmp_path: Path) -> None:
    """A second run goes on with the byte after the last one that has come."""
    hub.breaks_after, hub.stays_broken = 70_000, True
    ms(tmp_path, hub).assert_error(5, "download-failed", "owner/model/model.pt")
    hub.is_broken = hub.stays_broken = False
    hub.ranges.clear()
    folder, *_ = fetch(tmp_path, hub)
    assert hub.ranges == ["bytes=70000-"]
    assert (folder / "model.pt").read_bytes() == hub.files["model.pt"].read_bytes()


BESIDE = """
import sys
from tqdm.auto import tqdm
from funasr_cli.checkpoints.hub import fetch_source
from funasr_cli.options import Hub
sizes = []
with tqdm(total=2, mininterval=0, file=sys.stdout) as bar:
    fetch_source("owner/model", progress=lambda *told: (sizes.append(told), bar.refresh()), hub=Hub.MS)
    assert tqdm(total=1, file=sys.stdout).disable is False
    bar.update(2)
what, done, total = sizes[-1]
assert done == total > 1_000_000, sizes
assert "modelscope_hub" not in sys.modules
"""


def test_the_rest_of_the_process_is_left_alone(hub: ModelScopeHub, tmp_path: Path) -> None:
    """Other bars go on; ours is told of every byte."""
    env = environment(**surroundings(tmp_path, hub.url))
    done = subprocess.run([PYTHON, "-c", BESIDE], capture_output=True, text=True, timeout=120, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2/2" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_ends_the_download_too(hub: ModelScopeHub, tmp_path: Path) -> None:
    """It runs in a process of its own."""
    command = [*COMMAND, "convert", "owner/model", "--hub", "ms"]
    answer, asked = hub.answer, []

    def interrupt(path: str) -> object:
        if not asked:
            asked.append(path)
            os.kill(process.pid, signal.SIGINT)
            process.wait(timeout=60)
        return answer(path)

    hub.answer = interrupt  # type: ignore[assignment, method-assign]
    env = environment(**surroundings(tmp_path, hub.url))
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "warning: interrupted")
    running = [path for path in Path("/proc").glob("[0-9]*/environ") if is_of(path, tmp_path)]
    assert running == []


def is_of(environ: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in environ.read_bytes()
    except OSError:
        return False


def test_client_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "modelscope_hub" else find(name))
    result = invoke("convert", "nano", "--hub", "ms")
    result.assert_error(5, "package-missing", "modelscope-hub", "pip install 'funasr-cli[modelscope]'")
