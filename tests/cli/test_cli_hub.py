"""`funasr convert ID` from local servers that imitate the hubs. More: `unit/test_repository_downloads.py`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from support.hub_client import HUBS, convert, surroundings
from support.hub_server import MAIN, PIECE_BYTES, ModelScopeHub, Repository, serving
from support.running import COMMAND, PYTHON, environment, funasr, invoke
from support.small import MakeCheckpoint

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
def test_conversion(kind: str, make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """Hub and commit are recorded. The clients draw and log nothing, and the variable can replace the option."""
    with serving(HUBS[kind](make_checkpoint(with_ctc=True))) as hub:
        result = convert(tmp_path, hub.url, "owner/model", FUNASR_HUB=kind)
        again = convert(tmp_path, hub.url, "owner/model", "--hub", kind)
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
    again.assert_error(1, "output-exists", str(out))


@pytest.mark.parametrize("kind", HUBS)
@pytest.mark.parametrize(("status", "exit_code", "code"), [(401, 3, "hub-missing"), (500, 5, "hub-unreachable")])
def test_refusals(kind: str, status: int, exit_code: int, code: str, checkpoint: Path, tmp_path: Path) -> None:
    """The result does not depend on which process gets the error."""
    with serving(HUBS[kind](checkpoint)) as hub:
        hub.fault = status, "RepoNotFound" if status == 401 else ""
        convert(tmp_path, hub.url, "owner/model", "--hub", kind).assert_error(exit_code, code, "owner/model")


# --- settings that Hugging Face's client reads once; more: `unit/test_network.py`. No server listens on port 9 ---


@pytest.mark.parametrize(
    ("variables", "code", "values"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "proxy-setting", ["ALL_PROXY=socks5://", "pip install socksio"]),
        ({"HF_HUB_ETAG_TIMEOUT": "1.5"}, "hub-setting", ["HF_HUB_ETAG_TIMEOUT=1.5"]),
        ({"HF_ENDPOINT": "hf-mirror.com"}, "hub-setting", ["write it as https://hf-mirror.com"]),
        ({"HF_HUB_ENABLE_HF_TRANSFER": "1"}, "hub-unreachable", ["http://127.0.0.1:9"]),  # without a warning
    ],
)
def test_a_setting_is_named(tmp_path: Path, variables: dict[str, str], code: str, values: list[str]) -> None:
    result = convert(tmp_path, "http://127.0.0.1:9", "acme/model", **variables)
    result.assert_error(5, code, *values)
    assert len(result.stderr.splitlines()) == 2


def test_a_refused_variable_and_a_model_by_its_id(tmp_path: Path) -> None:
    """The client is also imported to look a model up in its cache."""
    env = {"FUNASR_HOME": str(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "abc", "HF_HOME": str(tmp_path)}
    result = funasr("transcribe", DATA / "zh-6s.wav", "--model", "owner/model", env=env)
    result.assert_error(5, "hub-setting", "HF_HUB_DOWNLOAD_TIMEOUT=abc")


# --- ModelScope's client runs in a separate process ---


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Repository]:
    with serving(ModelScopeHub(checkpoint)) as served:
        yield served


OTHER_BAR = """
import sys
from tqdm.auto import tqdm
from funasr_cli.hubs.find import fetch_checkpoint
from funasr_cli.options import Hub
sizes = []
with tqdm(total=2, mininterval=0, file=sys.stdout) as bar:
    fetch_checkpoint("owner/model", progress=lambda *told: (sizes.append(told), bar.refresh()), hub=Hub.MS)
    assert tqdm(total=1, file=sys.stdout).disable is False
    bar.update(2)
what, done, total = sizes[-1]
assert done == total > 1_000_000, sizes
assert "modelscope_hub" not in sys.modules
"""


def test_the_rest_of_the_process_is_not_affected(hub: Repository, tmp_path: Path) -> None:
    """Progress bars of other code continue; ours receives every byte."""
    env = environment(**surroundings(tmp_path, hub.url))
    done = subprocess.run([PYTHON, "-c", OTHER_BAR], capture_output=True, text=True, timeout=120, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2/2" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_ends_the_download_too(hub: Repository, tmp_path: Path) -> None:
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


def test_ctrl_c_does_not_wait_for_a_file(checkpoint: Path, tmp_path: Path) -> None:
    """Hugging Face's client downloads in threads, and would finish every file that it has begun."""
    pieces = 0

    def interrupt() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 20:
            process.send_signal(signal.SIGINT)
        time.sleep(0.05)

    with serving(HUBS["hf"](checkpoint)) as hub:
        hub.before_piece = interrupt
        size = hub.size("model.pt")
        env = environment(**surroundings(tmp_path, hub.url))
        command = [*COMMAND, "convert", "owner/model"]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            _, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr.splitlines()[-1]) == (130, "warning: interrupted")
        assert pieces < size / PIECE_BYTES / 2
        hub.before_piece = None
        assert convert(tmp_path, hub.url, "owner/model").exit_code == 0


def is_of(environ: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in environ.read_bytes()
    except OSError:
        return False


def test_client_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "modelscope_hub" else find(name))
    result = invoke("convert", "nano", "--hub", "ms")
    result.assert_error(5, "package-missing", "modelscope-hub", "the extra modelscope")
