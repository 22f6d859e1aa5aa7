"""Errors of an unreachable hub name each setting that may cause them, with both hubs' clients."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
from support.hub_client import HUBS, Client
from support.hub_server import Repository, serving

from funasr_cli.hubs import modelscope
from funasr_cli.hubs.network import OFFLINE_VARIABLE, failure, offline_variable, setting_at_fault

NOWHERE = "http://127.0.0.1:9"  # no server listens there


@pytest.fixture(params=HUBS)
def client(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(request.param, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("ALL_PROXY=socks://127.0.0.1:9", "socks5://127.0.0.1:9"),
        ("http_proxy=socks4://127.0.0.1:9", "socks5://127.0.0.1:9"),
        ("ALL_PROXY=socks5://127.0.0.1:9", "pip install "),
        ("all_proxy=socks5h://127.0.0.1:9", "pip install "),
        ("HTTP_PROXY=ftp://127.0.0.1:9", "http://HOST:PORT"),
        ("http_proxy=“http://127.0.0.1:9”", "http://HOST:PORT"),
        ("HTTP_PROXY= http://127.0.0.1:9", "http://HOST:PORT"),
        ("all_proxy=http://127.0.0.1:abc", "http://HOST:PORT"),
        ("HTTP_PROXY=http://", "http://HOST:PORT"),
        ("HTTP_PROXY=http:/127.0.0.1:9", "http://HOST:PORT"),
        ("http_proxy=http//127.0.0.1:9", "http://HOST:PORT"),
        ("ALL_PROXY=socks://me:secret@127.0.0.1:9", "socks5://...@127.0.0.1:9"),
        ("ALL_PROXY=SOCKS://127.0.0.1:9", "socks5://127.0.0.1:9"),
        ("ALL_PROXY=SOCKS5://127.0.0.1:9", "pip install "),
        ("ALL_PROXY=127.0.0.1:9", "NO_PROXY=hub.invalid"),
        ("http_proxy=http://me:secret@127.0.0.1:9", "NO_PROXY=hub.invalid"),
        ("HTTP_PROXY=http://proxy.invalid:3128", "NO_PROXY=hub.invalid"),
    ],
)
def test_proxies(client: Client, setting: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable, _, value = setting.partition("=")
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", _without_pysocks)
    shown = f"{setting.replace('me:secret', '...')}: "
    text = client.assert_refused("http://hub.invalid", "proxy-setting", shown, hint, **{variable: value})
    assert "secret" not in text


def _without_pysocks(*_: object, **__: object) -> None:
    """Do as requests without PySocks, which tests of the page need."""
    raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")


def test_an_unused_proxy_is_not_named(client: Client) -> None:
    """It may be for another scheme, or have an exception for this host, even among odd entries."""
    for variables in ({"HTTPS_PROXY": NOWHERE}, {"HTTP_PROXY": NOWHERE, "NO_PROXY": "[::1, http://[, 127.0.0.1"}):
        client.assert_refused(NOWHERE, "hub-unreachable", "", NOWHERE, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["http://hub.invalid", "https://hub.invalid"])
def test_a_proxy_that_requires_a_password(client: Client, tmp_path: Path, endpoint: str) -> None:
    with serving(Repository(tmp_path)) as proxy:
        proxy.fault = (407, "")
        setting = f"all_proxy={proxy.url}: "
        client.assert_refused(endpoint, "proxy-setting", setting, "USER:PASSWORD@", all_proxy=proxy.url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl")
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", path.with_suffix(".key"), "-out", path], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".key").read_text())
    return path


def test_a_self_signed_certificate(client: Client, certificate: Path, tmp_path: Path) -> None:
    """A proxy that inspects all traffic presents such a certificate."""
    variable = {"hf": "SSL_CERT_FILE", "ms": "REQUESTS_CA_BUNDLE"}[client.name]
    folder = {"hf": "SSL_CERT_DIR", "ms": "CURL_CA_BUNDLE"}[client.name]
    with serving(HUBS[client.name](tmp_path), certificate) as hub:
        for variables in ({}, {folder: str(tmp_path)}):
            named = [f"{name}={value}" for name, value in variables.items()]
            client.assert_refused(hub.url, "certificate-setting", "", hub.url, variable, *named, **variables)


@pytest.mark.parametrize("value", ["/nonexistent.pem", __file__, "/"])
def test_invalid_certificate_files(client: Client, value: str, certificate: Path, tmp_path: Path) -> None:
    if value == "/" and client.name == "ms":
        pytest.skip("its variable may name a folder")
    variable = {"hf": "SSL_CERT_FILE", "ms": "REQUESTS_CA_BUNDLE"}[client.name]
    with serving(Repository(tmp_path), certificate) as hub:
        client.assert_refused(hub.url, "certificate-setting", f"{variable}={value}: ", **{variable: value})


@pytest.mark.slow
@pytest.mark.parametrize("token", ["“secret”", "sec ret", "'secret'", '"secret"', "secré", "secret​"])
def test_a_token_that_was_pasted_badly(client: Client, token: str, tmp_path: Path) -> None:
    """The hub rejects the token, or is not contacted at all. The token is not shown."""
    variable = {"hf": "HF_TOKEN", "ms": "MODELSCOPE_API_TOKEN"}[client.name]
    with serving(Repository(tmp_path)) as hub:
        hub.fault = (401, "RepoNotFound")
        text = client.assert_refused(hub.url, "token-setting", f"{variable}: ", **{variable: token})
    assert "sec" not in text


def test_a_token_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own login command writes this file."""
    client = Client("hf", tmp_path, monkeypatch)
    (tmp_path / "token").write_text("“hf_abc”\n")
    client.assert_refused(NOWHERE, "token-setting", f"{tmp_path / 'token'}: ")


@pytest.mark.slow
def test_a_token_that_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a token's usual form."""
    with serving(Repository(tmp_path)) as hub:
        hub.fault = (401, "")
        client = Client("hf", tmp_path, monkeypatch)
        client.assert_refused(hub.url, "token-setting", "HF_TOKEN: ", HF_TOKEN="hf_abc")


@pytest.mark.parametrize("endpoint", ["http://[::1", "ftp://hub.invalid", "http://", "http://hub.invalid:abc"])
def test_addresses(client: Client, endpoint: str) -> None:
    variable = {"hf": "HF_ENDPOINT", "ms": "MODELSCOPE_ENDPOINT"}[client.name]
    client.assert_refused(endpoint, "hub-setting", f"{variable}={endpoint}: ")


def test_an_answer_of_the_hub_names_no_settings(tmp_path: Path) -> None:
    answer = Exception()
    answer.status_code = 503  # type: ignore[attr-defined]
    access = modelscope.Access(NOWHERE, "X", {"TOKEN": "“"}, ("SSL_CERT_FILE",), "pysocks", "", tmp_path, "", "")
    assert setting_at_fault(answer, access) is None


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.ECONNRESET, "download-failed")],
)
def test_downloads_that_end_early(tmp_path: Path, number: int, code: str) -> None:
    """The innermost reason is reported, in one line."""
    access = modelscope.Access(NOWHERE, "X", {}, (), "pysocks", "", tmp_path, "CACHE", "make room")
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as inner:
            raise RuntimeError("the client's own words\non two lines") from inner
    except RuntimeError as outer:
        error = failure("owner/model", outer, access, "run it again")
    assert (error.code, error.hint) == (code, "make room" if code == "disk-full" else "run it again")
    assert (str(tmp_path) if code == "disk-full" else os.strerror(number)) in error.message


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR])
def test_a_cache_that_cannot_be_written(tmp_path: Path, number: int) -> None:
    """More space would not help."""
    access = modelscope.Access(NOWHERE, "X", {}, (), "pysocks", "", tmp_path, "CACHE", "make room")
    unwritable = OSError(number, os.strerror(number), str(tmp_path / "blobs"))
    error = failure("owner/model", unwritable, access, "run it again")
    assert error.code == "output-unwritable"
    assert ("CACHE" in error.hint, "room" in error.hint) == (True, False)


@pytest.mark.parametrize("value", ["", "0", "false", "No", "OFF", "f", " n "])
def test_values_that_allow_downloads(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(OFFLINE_VARIABLE, value)
    assert offline_variable() is None


@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "2"])
def test_values_that_forbid_downloads(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(OFFLINE_VARIABLE, value)
    assert offline_variable() == OFFLINE_VARIABLE
