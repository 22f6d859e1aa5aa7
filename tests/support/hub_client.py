"""Commands that meet a hub on this machine, with caches of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.hub_server import Hub, ModelScopeHub, Repository
from support.running import PYTHON, Result, environment, funasr

# Of the small checkpoint, in FunASR's layout.
NEEDED = {
    "config.yaml", "configuration.json", "model.pt", "multilingual.tiktoken", "Qwen3-0.6B/config.json",
    "Qwen3-0.6B/generation_config.json", "Qwen3-0.6B/merges.txt", "Qwen3-0.6B/tokenizer.json",
    "Qwen3-0.6B/tokenizer_config.json", "Qwen3-0.6B/vocab.json",
}  # fmt: skip
FETCH = """
import sys
from funasr_cli.checkpoints.hub import fetch_source
from funasr_cli.options import Hub
source = fetch_source("owner/model", sys.argv[2] or None, hub=Hub(sys.argv[1]))
print(source.folder, source.revision, source.hub, sep="\\n")
"""


def surroundings(home: Path, endpoint: str) -> dict[str, str]:
    """Variables of both hubs; no waiting for a server that is gone."""
    return {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "MODELSCOPE_ENDPOINT": endpoint,
        "MODELSCOPE_CACHE": str(home / "ms-cache"), "MODELSCOPE_HOME": str(home / "ms-home"),
        "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0",
        "MODELSCOPE_API_MAX_RETRIES": "1", "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
        "FUNASR_HOME": str(home / "home"), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip


def convert(home: Path, endpoint: str, *arguments: str, **env: str) -> Result:
    """`funasr convert`, as its users run it, but for the proof, which has tests of its own."""
    return funasr("convert", *arguments, "--verify", "off", env=surroundings(home, endpoint) | env)


def fetch(home: Path, hub: Repository, revision: str = "", **env: str) -> tuple[Path, str, str]:
    """Folder, commit and hub of a download that is not converted, which saves loading torch."""
    name = {Hub: "hf", ModelScopeHub: "ms"}[type(hub)]
    command = [PYTHON, "-c", FETCH, name, revision]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment(**surroundings(home, hub.url) | env)
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no client draws or logs anything
    folder, commit, label = done.stdout.splitlines()
    return Path(folder), commit, label


def names(folder: Path) -> set[str]:
    """The files in a folder and those below."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
