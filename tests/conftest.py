"""Settings and fixtures of all tests: a clean environment and real speech. Small models are in `support/`."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

pytest_plugins = [
    "support.small", "support.processes", "support.whisper_rows", "support.qwen4b", "support.translating",
    "support.campplus",
]  # fmt: skip

DATA = Path(__file__).parent / "data"

# The developer's own settings must not reach a test; only the folder of the real data may be elsewhere.
for name in [name for name in os.environ if name.startswith("FUNASR_") and name != "FUNASR_REAL_DATA"]:
    del os.environ[name]
os.environ["FUNASR_CONFIG"] = os.devnull

# The same examples every time, fewer with `make test-quick`; `make test-full` looks for new ones. No deadline: a
# busy machine is not a bug.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
settings.register_profile("quick", deadline=None, max_examples=10, derandomize=True, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("default")

# A shell that starts this process in the background makes it ignore Ctrl-C. Its child processes would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Limit tests that set their own number of examples to the quick profile's number."""
    if config.getoption("hypothesis_profile") == "quick":
        for test in (getattr(item, "obj", None) for item in items):
            if stated := getattr(test, "_hypothesis_internal_use_settings", None):
                few = min(stated.max_examples, settings.default.max_examples)
                test._hypothesis_internal_use_settings = settings(stated, max_examples=few, derandomize=True)


@pytest.fixture(scope="session")
def zh_wav() -> Path:
    """Return six seconds of Mandarin, 16 kHz mono."""
    return DATA / "zh-6s.wav"


@pytest.fixture(scope="session")
def en_flac() -> Path:
    """Return eleven seconds of English, 44.1 kHz stereo."""
    return DATA / "en-11s-jfk.flac"


@pytest.fixture(scope="session")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return half a minute: all clips of the demo model in one recording, each followed by a pause of 0.6 s."""
    from funasr_cli import demo  # only after the environment above has been cleaned

    path = tmp_path_factory.mktemp("joined") / "joined.wav"
    samples = [soundfile.read(clip.path, dtype="int16")[0] for clip in demo.clips()]
    soundfile.write(path, np.concatenate([np.pad(part, (0, 9600)) for part in samples]), 16000)
    return path
