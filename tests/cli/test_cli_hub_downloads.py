"""Downloads from Hugging Face that end early, are unwanted or here already, through a hub on this machine."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_client import NEEDED, convert, convert_on_a_full_disk, fetch, find_model, names
from support.hub_server import MAIN, OLDER, Hub, serving
from support.running import Result

MEBIBYTE = 1 << 20
AGAIN = "  run it again: it goes on where it stopped\n"


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


def test_only_what_is_needed(hub: Hub, tmp_path: Path) -> None:
    add(
        hub,
        tmp_path,
        "model.py",
        "requirements.txt",
        "example/zh.mp3",
        "model.onnx",
        "model.pt.ep1",
        ".gitattributes",
    )
    folder, commit, name = fetch(tmp_path, hub)
    assert (names(folder), commit, name) == (NEEDED, MAIN, "hf")
    assert len(hub.downloaded) == len(NEEDED)


def test_shards(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.pt"], hub.files["config.yaml"]
    shards = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    add(hub, tmp_path, "config.json", "tokenizer.json", "model.safetensors.index.json", *shards)
    folder, *_ = fetch(tmp_path, hub)
    wanted = {"config.json", "tokenizer.json", "model.safetensors.index.json", *shards}
    assert names(folder) == (NEEDED - {"model.pt", "config.yaml"}) | wanted


def test_safetensors_go_before_a_pickle(hub: Hub, tmp_path: Path) -> None:
    add(hub, tmp_path, "config.json", "model.safetensors")
    fetch(tmp_path, hub)
    assert "model.safetensors" in hub.downloaded
    assert "model.pt" not in hub.downloaded


def test_no_checkpoint_in_it(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.pt"]
    result = convert(tmp_path, hub.url, "owner/model")
    result.assert_fails(
        3,
        "error: owner/model: no model.pt and no model.safetensors in it\n  name the repository of a checkpoint\n",
    )
    assert hub.downloaded == []


def test_a_lost_connection_costs_little(hub: Hub, tmp_path: Path) -> None:
    """A second run goes on behind the last ten megabytes that have come whole, in which the client writes."""
    content = random.Random(0).randbytes(24 * MEBIBYTE)
    hub.files["model.pt"].write_bytes(content)
    hub.breaks_after = 15 * MEBIBYTE
    size = len(content)
    why = f"peer closed connection without sending complete message body (received {15 * MEBIBYTE} bytes"
    told = f"error: owner/model: the download failed ({why}, expected {size}))\n{AGAIN}"
    assert convert(tmp_path, hub.url, "owner/model") == Result(5, "", f"downloading owner/model\n{told}")
    hub.fault = hub.breaks_after = None
    hub.ranges.clear()
    folder, commit, _ = fetch(tmp_path, hub)
    assert hub.ranges == [f"bytes={10 * MEBIBYTE}-"]
    assert (folder / "model.pt").read_bytes() == content
    assert commit == MAIN
    assert not list((tmp_path / "cache").rglob("*incomplete"))


def test_fewer_bytes_than_announced(hub: Hub, tmp_path: Path) -> None:
    """What does not add up is not kept: the next run starts over."""
    hub.omits_bytes = 10
    result = convert(tmp_path, hub.url, "owner/model")
    result.assert_fails(5, "error: owner/model: the download failed (", AGAIN)
    hub.omits_bytes = 0
    hub.ranges.clear()
    fetch(tmp_path, hub)
    assert hub.ranges == [""]


def test_another_file_than_the_hub_lists(hub: Hub, tmp_path: Path) -> None:
    """Of the right size, but not of the right SHA-256."""
    hub.sha256 = lambda name: "e" * 64  # type: ignore[method-assign]
    result = convert(tmp_path, hub.url, "owner/model")
    damaged = "model.pt has arrived damaged: its SHA-256 is not the hub's"
    result.assert_fails(5, f"error: owner/model: the download failed ({damaged})\n{AGAIN}")
    assert not list((tmp_path / "cache").rglob("*incomplete"))


def test_what_is_here_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    first = fetch(tmp_path, hub)
    hub.fault = (503, "")
    assert fetch(tmp_path, hub) == first  # the hub is down
    assert fetch(tmp_path, hub, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9") == first


@pytest.mark.parametrize("begun", [False, True])
def test_offline_without_it(hub: Hub, tmp_path: Path, begun: bool) -> None:
    if begun:
        folder, *_ = fetch(tmp_path, hub)
        (folder / "model.pt").unlink()
    result = convert(tmp_path, hub.url, "owner/model", HF_HUB_OFFLINE="1")
    here = "only in part" if begun else "not"
    result.assert_fails(
        5, f"error: owner/model: {here} on this machine, and HF_HUB_OFFLINE forbids to download it\n"
    )


def test_a_file_that_another_revision_has_too(hub: Hub, tmp_path: Path) -> None:
    """The cache keeps it once; what is recorded is the commit asked for."""
    fetch(tmp_path, hub)
    hub.downloaded.clear()
    _, commit, _ = fetch(tmp_path, hub, "v1")
    assert commit == OLDER
    assert "model.pt" not in hub.downloaded


def test_token(hub: Hub, tmp_path: Path) -> None:
    fetch(tmp_path, hub, HF_TOKEN="hf_secret")
    assert "Bearer hf_secret" in hub.authorization


def test_a_conversion_of_others_is_used_as_it_lies_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    """`--model ID`: without a conversion, and without a network."""
    add(hub, tmp_path, "config.json", "model.safetensors")
    (tmp_path / "more/config.json").write_text('{"model_type": "fun_asr_nano", "text_config": {"vocab_size": 9}}')
    folder, *_ = fetch(tmp_path, hub)
    assert find_model(tmp_path, "owner/model") == f"{folder}\n"
    (folder / "model.safetensors").unlink()
    assert find_model(tmp_path, "owner/model").endswith("ModelError: owner/model: no such model")


def test_no_room_for_the_download(hub: Hub, tmp_path: Path) -> None:
    """Nothing is begun."""
    result = convert_on_a_full_disk(tmp_path, hub, "owner/model")
    needed = sum(hub.files[name].stat().st_size for name in NEEDED)
    assert result == Result(
        1,
        "",
        f"error: {tmp_path}: the download of owner/model needs {needed / 1e6:,.1f} MB, 0.0 MB are free\n"
        "  make room there, or let HF_HOME name a folder on another disk\n",
    )
    assert hub.downloaded == []
