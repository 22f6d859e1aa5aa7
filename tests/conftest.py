"""Fixtures that all tests share: small random checkpoints, their conversions, and real speech."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.checkpoints import CheckpointSpec, write_checkpoint

import funasr_cli

DATA = Path(__file__).parent / "data"

# Whatever the developer's own settings say must not reach a test.
for name in [name for name in os.environ if name.startswith("FUNASR_")]:
    del os.environ[name]
os.environ["FUNASR_CONFIG"] = os.devnull

# A busy machine is no fault of the code.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

# Started in the background by a shell, this process ignores Ctrl-C, and so would every command that it runs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream checkpoint of the release's depth at a tiny width, float32, without a CTC branch."""
    return write_checkpoint(
        tmp_path_factory.mktemp("tiny") / "Fun-ASR-Nano-tiny", CheckpointSpec(dtype=torch.float32)
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint`, converted in float32."""
    out = tmp_path_factory.mktemp("converted") / "tiny"
    return funasr_cli.convert(str(tiny_checkpoint), out, dtype="float32", verify="off").folder


@pytest.fixture(scope="session")
def zh_wav() -> Path:
    """Six seconds of Mandarin, 16 kHz mono."""
    return DATA / "zh-6s.wav"


@pytest.fixture(scope="session")
def en_flac() -> Path:
    """Eleven seconds of English, 44.1 kHz stereo."""
    return DATA / "en-11s-jfk.flac"
