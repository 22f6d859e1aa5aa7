"""`funasr convert --verify full`: every stage beside FunASR's own PyTorch code, in the converter itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import CheckpointSpec, write_checkpoint
from parity.live import reference_python

import funasr_cli
from funasr_cli.verification.reference_python import VARIABLE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("with_ctc", [False, True])
def test_verify_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ctc: bool) -> None:
    spec = CheckpointSpec(encoder_blocks=4, encoder_tp_blocks=2, llm_layers=2, with_ctc=with_ctc)
    source = write_checkpoint(tmp_path / "Nano", spec)
    monkeypatch.setenv(VARIABLE, str(reference_python()))
    found = funasr_cli.convert(source, tmp_path / "out", quantize=8, group_size=32, verify="full").proof
    assert found
    assert found.port_errors
    assert max(found.port_errors.values()) < 1e-3
    assert (found.port_agreeing, found.tokens) == (found.tokens, 24)
    assert found.errors["encoder"] == 0 < found.errors["logits"]
