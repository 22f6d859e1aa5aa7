"""Reasons why a hub does not answer: the hub itself, or a setting such as an address, token or proxy."""

import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from funasr_cli.errors import OutputError, SetupError
from funasr_cli.paths import NO_ROOM

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
NOT_OF_A_TOKEN = re.compile(r"[^!#-&(-_a-~]")  # spaces, quotes, non-ASCII characters
UNAUTHORIZED, PROXY_AUTHENTICATION = 401, 407  # HTTP status codes
OFFLINE_VARIABLE = "FUNASR_OFFLINE"
NOT_OFFLINE = ("", "0", "false", "f", "no", "n", "off")  # its values that allow downloads, as for Click's flags


@dataclass(frozen=True)
class Access:
    """The settings that a hub's client uses."""

    endpoint: str  # the hub's address
    variable: str  # the environment variable that overrides the address
    tokens: Mapping[str, str]  # tokens by the variable or file that holds them; the first one is used
    certificates: tuple[str, ...]  # variables that name certificate files; the first one is the one to set
    socks: str  # package that the client needs for SOCKS proxies
    elsewhere: str  # hint for a hub that cannot be reached
    cache: Path  # where downloads are kept
    cache_variable: str  # the variable that moves the cache
    room: str  # hint for a cache on a full disk


def offline_variable() -> str | None:
    """Return the name of our variable that forbids downloads, if it is set; 0, false, no and off do not count."""
    is_off = os.environ.get(OFFLINE_VARIABLE, "").strip().lower() in NOT_OFFLINE
    return None if is_off else OFFLINE_VARIABLE


def offline(hub_id: str, variable: str, *, partly: bool) -> SetupError:
    """Return the error for a repository that would have to be downloaded while a variable forbids it."""
    here = "only partly" if partly else "not"
    hint = f"unset {variable}, or copy a model's folder to this machine and name that"
    return SetupError(
        f"{hub_id}: {here} on this machine, and {variable} forbids downloads", hint, code="hub-offline"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the innermost last."""
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__cause__ or cause.__context__


def reason(error: BaseException) -> str:
    """Return the innermost reason for an error, in one line."""
    # JSON parsers raise their errors from a StopIteration, which says nothing.
    *_, innermost = (cause for cause in causes(error) if not isinstance(cause, StopIteration))
    texts = (getattr(innermost, "strerror", None), getattr(innermost, "message", None), str(innermost))
    return str(next(filter(None, texts), type(innermost).__name__)).splitlines()[0]


def unreached(hub_id: str, error: BaseException, access: Access) -> OutputError | SetupError:
    """Return the error for a hub that does not answer, or answers with something else."""
    what = "cannot be reached" if _is_about_a_connection(error) else "does not answer like a hub"
    message = f"{hub_id}: {access.endpoint} {what} ({reason(error)})"
    return setting_at_fault(error, access) or SetupError(message, access.elsewhere, code="hub-unreachable")


def failure(hub_id: str, error: BaseException, access: Access, hint: str) -> OutputError | SetupError:
    """Return the error for a download that ended early: a full disk, a wrong setting, or anything else."""
    message = f"{hub_id}: the download failed ({reason(error)})"
    return setting_at_fault(error, access) or SetupError(message, hint, code="download-failed")


def setting_at_fault(error: BaseException, access: Access) -> OutputError | SetupError | None:
    """Return the error for the user setting that caused a failure; None if no setting seems to be at fault."""
    return (
        _cache_at_fault(error, access)
        or wrong_address(access.endpoint, access.variable)
        or _token_at_fault(error, access)
        or _certificates_at_fault(error, access)
        or _proxy_at_fault(error, access)
    )


def wrong_address(endpoint: str, variable: str) -> SetupError | None:
    """Return the error for a hub address that is not a valid URL; None if it is valid."""
    if _is_address(endpoint, ("http", "https")):
        return None
    hint = f"write it as https://{endpoint if '.' in endpoint and '/' not in endpoint else 'HOST'}, or unset it"
    return SetupError(f"{variable}={endpoint}: not the address of a hub", hint, code="hub-setting")


def wrong_token(access: Access) -> SetupError | None:
    """Return the error for a token with impossible characters, without showing it; None if it looks valid."""
    place, token = next(iter(access.tokens.items()), ("", ""))
    if not (odd := "".join(sorted(set(NOT_OF_A_TOKEN.findall(token.strip()))))):
        return None
    hint = "paste it again, without quotes, spaces and line breaks"
    return SetupError(f"{place}: a token cannot contain these characters: {odd!a}", hint, code="token-setting")


def _cache_at_fault(error: BaseException, access: Access) -> OutputError | None:
    for cause in (cause for cause in causes(error) if isinstance(cause, OSError)):
        if cause.errno in NO_ROOM:
            return OutputError(f"{access.cache}: the disk is full", access.room, code="disk-full")
        place = Path(os.fsdecode(cause.filename)) if isinstance(cause.filename, str | bytes) else None
        if place and (place.is_relative_to(access.cache.parent) or access.cache.is_relative_to(place)):
            message = f"{place}: cannot be used ({cause.strerror})"
            hint = f"set {access.cache_variable} to a folder that you may write to"
            return OutputError(message, hint, code="output-unwritable")
    return None


def _token_at_fault(error: BaseException, access: Access) -> SetupError | None:
    if _status(error) == UNAUTHORIZED and access.tokens:
        message = f"{next(iter(access.tokens))}: {access.endpoint} does not accept this token"
        hint = "create a new token, or unset it: public models need none"
        return wrong_token(access) or SetupError(message, hint, code="token-setting")
    return wrong_token(access) if "header" in _described(error) else None  # it cannot be put into an HTTP header


def _certificates_at_fault(error: BaseException, access: Access) -> SetupError | None:
    chosen = {name: os.environ[name] for name in access.certificates if os.environ.get(name)}
    if "certificate_verify_failed" in _described(error):
        named = "".join(f" or {name}={value}" for name, value in chosen.items())
        hint = f"if a proxy signs it, set {access.certificates[0]} to a file with that proxy's certificate"
        message = f"{access.endpoint}: its certificate is not trusted by this machine{named}"
        return SetupError(message, hint, code="certificate-setting")
    is_about_tls = any(isinstance(cause, ssl.SSLError) for cause in causes(error))
    if _status(error) or (_is_about_a_connection(error) and not is_about_tls):
        return None
    for name, value in chosen.items():
        try:
            if not os.path.isdir(value) or name.endswith("_FILE"):
                ssl.create_default_context(cafile=value)
        except OSError as unusable:
            message = f"{name}={value}: certificates cannot be read from it ({unusable.strerror})"
            return SetupError(message, "name a file in PEM format, or unset it", code="certificate-setting")
    return None


def _proxy_at_fault(error: BaseException, access: Access) -> SetupError | None:
    status, url, is_connection = _status(error), urlsplit(access.endpoint), _is_about_a_connection(error)
    if status not in (None, PROXY_AUTHENTICATION):
        return None
    used = {} if proxy_bypass(url.hostname or "") else _variables(f"{url.scheme}_proxy", "all_proxy")
    proxies = list(used.items())[:1]
    if not is_connection:  # some clients check every proxy variable before they connect
        proxies += _variables("http_proxy", "https_proxy", "all_proxy").items()
    for name, value in proxies:
        scheme, separator, rest = value.rpartition("://")
        masked = re.sub(".*@", "...@", rest)  # never a password
        shown = f"{name}={scheme}{separator}{masked}"
        is_socks = scheme.lower().startswith("socks")
        is_path = not separator and "/" in rest.rstrip("/")  # for example http:/HOST
        if is_path or not _is_address(value if separator else f"http://{value}", PROXY_SCHEMES):
            what = "not the address of a proxy"
            hint = f"write it as {f'socks5://{masked}' if is_socks else 'http://HOST:PORT'}"
        elif is_socks and not is_connection and "socks" in _described(error):
            what, hint = f"SOCKS needs {access.socks}", f"pip install {access.socks}"
        elif str(PROXY_AUTHENTICATION) in (str(status), *reason(error).split()):
            what = "the proxy rejects the user or password"
            hint = "write it as http://USER:PASSWORD@HOST:PORT, with %40 for an @ in the password"
        elif is_connection:
            what = f"{access.endpoint} cannot be reached through this proxy ({reason(error)})"
            hint = f"check the address; NO_PROXY={url.hostname} bypasses the proxy"
        else:
            continue
        return SetupError(f"{shown}: {what}", hint, code="proxy-setting")
    return None


def _variables(*names: str) -> dict[str, str]:
    """Return the variables that are set, by name, in lower or upper case."""
    return {name: os.environ[name] for stem in names for name in (stem, stem.upper()) if os.environ.get(name)}


def _is_address(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(value)
        has_port = url.port != 0  # raises ValueError if it is not a number
    except ValueError:
        return False
    is_plain = value.isascii() and value.isprintable() and not set(value) & set(" \"'")
    return is_plain and has_port and url.scheme in schemes and bool(url.hostname)


def _status(error: BaseException) -> int | None:
    """Return the status of the HTTP response that caused an error; None if there was no response."""
    holders = (holder for cause in causes(error) for holder in (cause, getattr(cause, "response", None)))
    return next((status for holder in holders if (status := getattr(holder, "status_code", None))), None)


def _is_about_a_connection(error: BaseException) -> bool:
    kinds = (ConnectionError, TimeoutError, socket.gaierror)
    names = re.compile("Proxy|Connect|Timeout")
    return any(isinstance(cause, kinds) or names.search(type(cause).__name__) for cause in causes(error))


def _described(error: BaseException) -> str:
    """Return types and texts of an error and its causes, in lower case; encoding errors count as header errors."""
    texts = [f"{type(cause).__name__} {cause}" for cause in causes(error)]
    return " ".join(texts).lower().replace("unicodeencodeerror", "header")
