"""The tool that measures a server, on a server of this process."""

from __future__ import annotations

import asyncio

import pytest
from support.serving import serving

from funasr_cli import demo
from tools.serving import measure, recordings_of


@pytest.mark.slow
def test_requests_at_once_and_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"demo": demo.MODEL}) as server:
        asyncio.run(measure(server.address, recordings_of(3, 1.0)))
    printed = capsys.readouterr().out
    assert "3 requests" in printed
    assert "texts the same" in printed
    assert "DIFFER" not in printed
