"""Downloads from Hugging Face that end early, are unwanted or here already, through a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import NEEDED, convert, fetch, find_model, names
from support.hub_server import MAIN, Hub, serving
from support.running import funasr

DATA = Path(__file__).parents[1] / "data"
LENGTH = 12 << 20  # more than what the client writes at once


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    with serving(Hub(checkpoint)) as served:
        yield served


def add(hub: Hub, folder: Path, *files: str) -> None:
    """Let the hub have further files; what is in them does not matter here."""
    for name in files:
        path = folder / "more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        hub.files[name] = path


def test_shards(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.pt"], hub.files["config.yaml"]
    shards = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    add(hub, tmp_path, "config.json", "tokenizer.json", "model.safetensors.index.json", *shards)
    folder, *_ = fetch(tmp_path, hub)
    wanted = {"config.json", "tokenizer.json", "model.safetensors.index.json", *shards}
    assert names(folder) == (NEEDED - {"model.pt", "config.yaml"}) | wanted


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
    add(hub, tmp_path, "config.json", "model.safetensors")
    (tmp_path / "more/config.json").write_text('{"model_type": "fun_asr_nano", "text_config": {"vocab_size": 9}}')
    folder, *_ = fetch(tmp_path, hub)
    assert "model.pt" not in hub.downloaded
    assert find_model(tmp_path, "owner/model") == f"{folder}\n"
    (folder / "model.safetensors").unlink()
    assert find_model(tmp_path, "owner/model").endswith("ModelError: owner/model: no such model")


def test_a_repository_in_another_layout(hub: Hub, tmp_path: Path) -> None:
    """Named by where it lies on this machine."""
    hub.files = {name: path for name, path in hub.files.items() if name != "config.yaml"}
    result = convert(tmp_path, hub.url, "owner/model")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"/snapshots/{MAIN}/config.yaml: missing" in result.stderr
    assert not list((tmp_path / "home").glob("**/*.safetensors"))


def test_gated(hub: Hub, tmp_path: Path) -> None:
    """Where to agree to the terms; nothing else is said of it."""
    hub.fault = (403, "GatedRepo")
    result = convert(tmp_path, hub.url, "owner/model")
    result.assert_error(3, "hub-gated", f"{hub.url}/owner/model", "HF_TOKEN")


# --- settings of the user's: nothing listens at port 9 ---

PROXY, SOCKS = "socks://127.0.0.1:9", "socks5://127.0.0.1:9"


@pytest.mark.parametrize(
    ("variables", "code", "values"),
    [
        ({"ALL_PROXY": PROXY}, "proxy-setting", [f"ALL_PROXY={PROXY}", f"write it as {SOCKS}"]),
        ({"ALL_PROXY": SOCKS}, "proxy-setting", [f"ALL_PROXY={SOCKS}", "pip install socksio"]),
        ({"SSL_CERT_FILE": "/nonexistent.pem"}, "certificate-setting", ["SSL_CERT_FILE=/nonexistent.pem"]),
        ({"HF_TOKEN": "“hf_abc”"}, "token-setting", ["HF_TOKEN: ", r"\u201c\u201d"]),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "abc"}, "hub-setting", ["HF_HUB_DOWNLOAD_TIMEOUT=abc"]),
        ({"HF_HUB_ETAG_TIMEOUT": "1.5"}, "hub-setting", ["HF_HUB_ETAG_TIMEOUT=1.5"]),
        ({"HF_ENDPOINT": "http://[::1"}, "hub-setting", ["HF_ENDPOINT=http://[::1"]),
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
