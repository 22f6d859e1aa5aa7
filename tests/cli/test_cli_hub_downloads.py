"""Downloads from Hugging Face that end early, are unwanted or here already, through a hub on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import NEEDED, convert, fetch, names
from support.hub_server import MAIN, Hub, serving
from support.running import PYTHON, environment, funasr

DATA = Path(__file__).parents[1] / "data"
LENGTH = 12 << 20  # more than what the client writes at once


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    with serving(Hub(checkpoint)) as served:
        yield served


def test_a_connection_that_is_lost_once(hub: Hub, tmp_path: Path) -> None:
    """The client goes on within the run."""
    content = hub.files["model.pt"].read_bytes().ljust(LENGTH + (1 << 20), b"\0")
    hub.files["model.pt"].write_bytes(content)
    hub.breaks_after = LENGTH
    folder, commit, _ = fetch(tmp_path, hub)
    assert (folder / "model.pt").read_bytes() == content
    assert commit == MAIN
    first, second = hub.ranges
    assert (first, second.startswith("bytes=")) == ("", True)


def test_a_connection_that_stays_lost(hub: Hub, tmp_path: Path) -> None:
    """The next run fetches the broken file anew, and no other."""
    hub.breaks_after, hub.stays_broken = 70_000, True
    result = convert(tmp_path, hub.url, "owner/model")
    result.assert_error(5, "download-failed", "owner/model")
    assert "hf download" in result.stderr
    assert not list((tmp_path / "cache").rglob("*incomplete"))
    hub.is_broken = hub.stays_broken = False
    hub.ranges.clear()
    hub.downloaded.clear()
    folder, *_ = fetch(tmp_path, hub)
    assert (hub.ranges, hub.downloaded) == ([""], ["model.pt"])
    assert names(folder) == NEEDED


def test_another_file_than_the_hub_lists(hub: Hub, tmp_path: Path) -> None:
    """Of the right size, but not of the right SHA-256."""
    sha256 = hub.sha256
    hub.sha256 = lambda name: 64 * "e"  # type: ignore[method-assign]
    convert(tmp_path, hub.url, "owner/model").assert_error(5, "download-failed", "model.pt")
    assert not list((tmp_path / "cache").rglob("model.pt"))
    hub.sha256 = sha256  # type: ignore[method-assign]
    assert names(fetch(tmp_path, hub)[0]) == NEEDED


@pytest.mark.parametrize("begun", [False, True])
def test_offline_without_it(hub: Hub, tmp_path: Path, begun: bool) -> None:
    if begun:
        folder, *_ = fetch(tmp_path, hub)
        (folder / "model.pt").unlink()
    result = convert(tmp_path, hub.url, "owner/model", HF_HUB_OFFLINE="1")
    result.assert_error(5, "hub-offline", "owner/model", "in part" if begun else "not on this machine")


def test_a_conversion_of_others_is_used_as_it_lies_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    """`--model ID`: without a conversion, and without a network. Safetensors go before a pickle."""
    theirs = {
        "config.json": '{"model_type": "fun_asr_nano", "text_config": {"vocab_size": 9}}',
        "model.safetensors": "x",
    }
    for name, content in theirs.items():
        hub.files[name] = tmp_path / name
        hub.files[name].write_text(content)
    folder, *_ = fetch(tmp_path, hub)
    assert "model.pt" not in hub.downloaded
    script = 'from funasr_cli.checkpoints.hub import find_model; print(find_model("owner/model"))'
    env = environment(HF_HOME=str(tmp_path / "cache"), FUNASR_HOME=str(tmp_path / "home"))

    def found() -> str:
        done = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, timeout=60, env=env)
        return done.stdout or done.stderr

    assert found() == f"{folder}\n"
    (folder / "model.safetensors").unlink()
    assert "ModelError: owner/model: no such model" in found()


def test_gated(hub: Hub, tmp_path: Path) -> None:
    """Where to agree to the terms; nothing else is said of it."""
    hub.fault = (403, "GatedRepo")
    result = convert(tmp_path, hub.url, "owner/model")
    result.assert_error(3, "hub-gated", f"{hub.url}/owner/model", "HF_TOKEN")


# --- settings of the user's, of which `unit/test_network.py` has more: nothing listens at port 9 ---


@pytest.mark.parametrize(
    ("variables", "code", "values"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "proxy-setting", ["ALL_PROXY=socks5://", "pip install socksio"]),
        ({"HF_TOKEN": "“hf_abc”"}, "token-setting", ["HF_TOKEN: ", r"\u201c\u201d"]),
        ({"HF_HUB_ETAG_TIMEOUT": "1.5"}, "hub-setting", ["HF_HUB_ETAG_TIMEOUT=1.5"]),
        ({"HF_ENDPOINT": "hf-mirror.com"}, "hub-setting", ["write it as https://hf-mirror.com"]),
        ({"HF_HUB_ENABLE_HF_TRANSFER": "1"}, "hub-unreachable", ["http://127.0.0.1:9"]),  # without a warning
    ],
)
def test_a_setting_is_named(tmp_path: Path, variables: dict[str, str], code: str, values: list[str]) -> None:
    """Nothing gets to standard output, and nothing is shown of a token."""
    result = convert(tmp_path, "http://127.0.0.1:9", "acme/model", **variables)
    result.assert_error(5, code, *values)
    assert len(result.stderr.splitlines()) == 2
    assert "hf_abc" not in result.stderr


def test_a_refused_variable_and_a_model_by_its_id(tmp_path: Path) -> None:
    """The client is also imported to look into its cache."""
    env = {"FUNASR_HOME": str(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "abc", "HF_HOME": str(tmp_path)}
    funasr("transcribe", DATA / "zh-6s.wav", "--model", "owner/model", env=env).assert_error(
        5, "hub-setting", "HF_HUB_DOWNLOAD_TIMEOUT=abc"
    )
