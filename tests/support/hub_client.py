"""The clients of both hubs, in this process and in a command's process, with private caches."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.errors import refused
from support.hub_server import Hub, ModelScopeHub
from support.running import Result, funasr

from funasr_cli.hubs import huggingface, modelscope

HUBS = {"hf": Hub, "ms": ModelScopeHub}
# Files of the small checkpoint in FunASR's layout.
NEEDED = {
    "config.yaml", "configuration.json", "model.pt", "multilingual.tiktoken", "Qwen3-0.6B/config.json",
    "Qwen3-0.6B/generation_config.json", "Qwen3-0.6B/merges.txt", "Qwen3-0.6B/tokenizer.json",
    "Qwen3-0.6B/tokenizer_config.json", "Qwen3-0.6B/vocab.json",
}  # fmt: skip
UNSET = (
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
    "MODELSCOPE_API_TOKEN",
)  # fmt: skip
# ModelScope's client reads these on import: do not wait for a server that is gone.
IMPATIENT = {
    "MODELSCOPE_API_MAX_RETRIES": "1", "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
    "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0",
}  # fmt: skip


class Client:
    """One of the two clients, in this process. It reads its environment variables again for each call."""

    def __init__(self, name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.home, self.cache, self.monkeypatch = name, home, home / "cache", monkeypatch
        self.is_offline = False
        for variable in UNSET:
            monkeypatch.delenv(variable, raising=False)
        for variable, value in {**IMPATIENT, "MODELSCOPE_HOME": str(home / "ms-home")}.items():
            monkeypatch.setenv(variable, value)

    def fetch(self, endpoint: str, hub_id: str = "owner/model", revision: str | None = None) -> tuple[Path, str]:
        """Return the folder and the commit of a downloaded or cached repository."""
        from huggingface_hub import close_session, constants

        if self.name == "ms":
            self.monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
            self.monkeypatch.setenv("MODELSCOPE_CACHE", str(self.cache))
            folder, commit = modelscope._fetch(hub_id, revision, lambda *_: None)
            return Path(folder), str(commit)
        for name, value in {
            "ENDPOINT": endpoint, "HF_HUB_CACHE": str(self.cache), "HF_TOKEN_PATH": str(self.home / "token"),
            "HF_HUB_OFFLINE": self.is_offline,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        }.items():  # fmt: skip
            self.monkeypatch.setattr(constants, name, value)
        close_session()
        try:
            source = huggingface.fetch(hub_id, revision, lambda *_: None)
        finally:
            close_session()
        return source.folder, str(source.revision)

    def assert_refused(self, endpoint: str, code: str, *values: object, **variables: str) -> str:
        """Assert that fetching with these variables raises this error, naming these values; return its text.

        The message starts with the first value.
        """
        for variable, value in variables.items():
            self.monkeypatch.setenv(variable, value)
        with refused(code, *values) as caught:
            self.fetch(endpoint)
        assert caught.value.message.startswith(str(values[0]))
        return caught.value.message + caught.value.hint


def surroundings(home: Path, endpoint: str) -> dict[str, str]:
    """Return the variables that point both hubs' clients in another process to this server and cache."""
    return {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "MODELSCOPE_ENDPOINT": endpoint,
        "MODELSCOPE_CACHE": str(home / "ms-cache"), "MODELSCOPE_HOME": str(home / "ms-home"), **IMPATIENT,
        "FUNASR_HOME": str(home / "home"), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip


def convert(home: Path, endpoint: str, *arguments: str, **env: str) -> Result:
    """Run `funasr convert` as users do, but without the verification, which has its own tests."""
    return funasr("convert", *arguments, "--verify", "off", env=surroundings(home, endpoint) | env)


def names(folder: Path) -> set[str]:
    """Return the relative paths of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
