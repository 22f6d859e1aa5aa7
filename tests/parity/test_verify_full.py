"""`funasr convert --verify full`: the converter compares every stage with FunASR's own PyTorch code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.adapters import embed, factors
from support.checkpoints import CheckpointSpec, write_checkpoint
from support.layouts import read_tensors
from support.parity.live import reference_python
from support.small import edit_json

import funasr_cli
from funasr_cli.paths import REFERENCE_PYTHON

pytestmark = [pytest.mark.slow, pytest.mark.process]


def make_hostile(source: Path, llm_folder: str, marker: Path) -> None:
    """Set every option that makes FunASR import, install, download or unpickle something."""
    (source / "model.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    (source / "requirements.txt").write_text("./nowhere\n", encoding="utf-8")
    options = yaml.safe_load((source / "config.yaml").read_text(encoding="utf-8"))
    options |= {
        "trust_remote_code": True, "remote_code": str(source / "model.py"), "vad_model": "fsmn-vad",
        "init_param": "/nowhere/other.pt",
    }  # fmt: skip
    options["llm_conf"] |= {
        "init_param_path": f"/trained/elsewhere/{llm_folder}", "load_kwargs": {"trust_remote_code": True},
    }  # fmt: skip
    options["ctc_decoder_conf"]["init_param_path"] = "/nowhere/ctc.pt"
    (source / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    classes = {"AutoConfig": "model.Config", "AutoModelForCausalLM": "model.Model"}
    edit_json(source / llm_folder / "config.json", lambda config: config.update(auto_map=classes))


@pytest.mark.parametrize("hostile", [pytest.param(False, marks=pytest.mark.full), True])
def test_verify_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: bool) -> None:
    """One checkpoint has a CTC branch, an adapter, and a hostile configuration, which is not executed.

    FunASR keeps the adapter apart, here it has been merged. The other checkpoint has none of these.
    """
    spec = CheckpointSpec(encoder_blocks=4, encoder_tp_blocks=2, llm_layers=2, with_ctc=hostile)
    source, marker = write_checkpoint(tmp_path / "Nano", spec), tmp_path / "marker"
    if hostile:
        make_hostile(source, spec.llm_folder, marker)
        modules = [f"llm.model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qv"]
        embed(source, factors(read_tensors(source), modules), {"r": 4, "lora_alpha": 6})
    monkeypatch.setenv(REFERENCE_PYTHON, str(reference_python()))
    found = funasr_cli.convert(source, tmp_path / "out", quantize=8, group_size=32, verify="full").proof
    assert not marker.exists()
    assert found
    assert found.port_errors
    assert max(found.port_errors.values()) < 1e-3
    assert (found.port_agreeing, found.tokens) == (found.tokens, 24)
    assert found.errors["encoder"] == 0 < found.errors["logits"]
    assert ((found.moved or 0) > 0.01) == hostile
