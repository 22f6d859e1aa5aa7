"""The tool that measures a server, on a server of this process."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from support.serving import serving

from funasr_cli import demo
from tools.serving import measure, measure_mixed, recordings_of


@pytest.mark.slow
def test_requests_at_once_and_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"demo": demo.MODEL}) as server:
        asyncio.run(measure(server.address, recordings_of(3, 1.0)))
    printed = capsys.readouterr().out
    assert "3 requests" in printed
    assert "texts the same" in printed
    assert "DIFFER" not in printed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_many_requests_leave(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"demo": demo.MODEL}) as server:
        asyncio.run(measure_mixed(server.address, os.getpid(), server.folder, recordings_of(2, 1.0), 20, 4))
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("after 4 mixed requests")
    assert last.startswith("after 20 mixed requests")
    assert last.endswith(" 0 temporary")
