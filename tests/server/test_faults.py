"""What other servers of these models get wrong, each as a test of ours; the other faults are in the other files.

| fault | test |
|---|---|
| `text` in quotation marks; `srt`, `vtt` as JSON; NDJSON unless told otherwise | `test_openai.py`: formats |
| words inside segments, no `seek` and `avg_logprob`, no `created` | `test_openai.py`: verbose answer, models |
| texts joined without spaces; cues of 80 characters with invented times | `test_openai.py`: command line |
| fields ignored; only one spelling of lists | `test_openai_fields.py`, `test_clients.py` |
| hotwords only under one name | `test_clients.py` |
| any hub id of a request is loaded; models stay for ever | `test_openai.py: test_models`, `test_service.py` |
| one request at a time | `test_service.py`: eight clients; `tests/unit/test_engine.py` |
| any failure is a 500, which clients send again | `test_openai.py`: not audio; `test_guard.py`: damaged uploads |
| 200 and an empty text when it takes too long | `test_service.py: ...begins_with_white_space`, `...refuses...` |
| no key, CORS for everyone, uploads without limit, files left in the temporary folder | `test_guard.py` |
| a hand-made parser of forms | `test_guard.py`: damaged and hostile uploads |
| memory that grows | `test_service.py`: a thousand requests |
| chunks of chat, running totals or nothing instead of OpenAI's events | `test_openai.py`: events |
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from support.media import write_media
from support.serving import Served, serving

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ

pytestmark = pytest.mark.slow

CLIP = demo.clips()[3].path


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving({"demo": demo.MODEL}) as served:
        yield served


def clip() -> np.ndarray:
    return load_audio(CLIP, SAMPLE_RATE_HZ).samples


@pytest.mark.parametrize(("suffix", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("ogg", "libopus")])
def test_what_browsers_record(server: Served, tmp_path: Path, suffix: str, codec: str) -> None:
    """Chrome and Firefox send webm, Safari mp4. Elsewhere: only what soundfile reads."""
    path = tmp_path / f"a.{suffix}"
    write_media(path, codec, np.repeat(clip(), 3)[:, None], 48000)
    answer = server.transcribe(path)
    assert answer.status_code == 200
    assert "Sarah" in answer.json()["text"]


def test_a_short_recording_has_a_text_or_none_but_no_error(server: Served, tmp_path: Path) -> None:
    """Elsewhere: segments under 0.3 s are dropped, or fail."""
    for count in (1, 400, 1600, 4000):
        soundfile.write(tmp_path / "a.wav", clip()[3000 : 3000 + count], SAMPLE_RATE_HZ)
        assert server.transcribe(tmp_path / "a.wav").status_code == 200


def test_a_long_recording_is_transcribed_to_its_end(server: Served, tmp_path: Path) -> None:
    """Elsewhere: 600 s at most, or 1,024 tokens for all of it, and 200 for the rest that is missing."""
    silence = np.zeros(660 * SAMPLE_RATE_HZ, np.float32)
    soundfile.write(tmp_path / "a.flac", np.concatenate([clip(), silence, clip()]), SAMPLE_RATE_HZ)
    answer = server.transcribe(tmp_path / "a.flac", response_format="verbose_json").json()
    assert [segment["text"] for segment in answer["segments"]] == [server.transcribe(CLIP).json()["text"]] * 2
    assert answer["segments"][1]["start"] > 660
    assert answer["complete"]


@pytest.mark.full
def test_a_text_has_no_limit_on_its_tokens(server: Served, tmp_path: Path) -> None:
    """Elsewhere: 1,024 tokens for the whole file; the rest is missing, with 200."""
    text, clips = server.transcribe(CLIP).json()["text"], 200
    pause = np.zeros(SAMPLE_RATE_HZ, np.float32)
    soundfile.write(tmp_path / "a.flac", np.concatenate([clip(), pause] * clips), SAMPLE_RATE_HZ)
    answer = server.transcribe(tmp_path / "a.flac", response_format="verbose_json").json()
    assert answer["text"].count(text) > 0.98 * clips
    assert len(answer["text"].split()) > 1024
    assert answer["complete"]


def test_a_websocket_is_not_opened(server: Served) -> None:
    """Elsewhere: without the key that other requests need. Ours has none, so nothing is switched."""
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    for path in ("/v1/realtime", "/v1/audio/transcriptions", "/health", "/"):
        assert httpx.get(server.address + path, headers=wanted).status_code in (200, 404, 405)


def test_all_that_the_server_imports_is_asked_for() -> None:
    """Elsewhere: a package that the wheel does not ask for."""
    root = Path(funasr_cli.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    known = {re.split(r"[^\w-]", each)[0].replace("-", "_").casefold() for each in wanted}
    for file in (root / "funasr_cli/server").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            others = {name.partition(".")[0] for name in names} - {"funasr_cli"} - sys.stdlib_module_names
            assert others <= known, file.name


def test_an_upload_is_on_disk_while_it_arrives(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere: it is in memory as a whole."""
    spooled: list[int] = []
    roll = tempfile.SpooledTemporaryFile.rollover

    def counted(file: tempfile.SpooledTemporaryFile[bytes]) -> None:
        spooled.append(file.tell())
        roll(file)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", counted)
    assert server.post(files={"file": ("a", bytes(5 << 20))}).status_code == 400
    assert spooled
    assert max(spooled) < 2 << 20


def test_others_are_answered_while_it_computes(server: Served, joined: Path) -> None:
    """Elsewhere: the event loop computes, or a lock keeps everyone waiting."""
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(server.transcribe, joined) for _ in range(3)]
        answered = 0
        while not all(answer.done() for answer in work):
            assert httpx.get(f"{server.address}/health", timeout=10.0).status_code == 200
            answered += 1
            time.sleep(0.01)
    assert answered > 5
    assert len({answer.result().text for answer in work}) == 1
    assert "computing" in {thread.name for thread in threading.enumerate()}
