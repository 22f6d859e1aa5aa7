"""What holds for all tests: their surroundings, and real speech. Small models: `support/small.py`."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["support.small", "support.processes"]

DATA = Path(__file__).parent / "data"

# Whatever the developer's own settings say must not reach a test.
for name in [name for name in os.environ if name.startswith("FUNASR_")]:
    del os.environ[name]
os.environ["FUNASR_CONFIG"] = os.devnull

# Fewer examples for `make test-quick`; the same ones every time. A busy machine is no fault of the code.
settings.register_profile("default", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=10, derandomize=True, database=None)
settings.load_profile("default")

# Started in the background by a shell, this process ignores Ctrl-C, and so would every command that it runs.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Hold tests that state how many examples they take to those of the quick profile."""
    if config.getoption("hypothesis_profile") == "quick":
        for test in (getattr(item, "obj", None) for item in items):
            if stated := getattr(test, "_hypothesis_internal_use_settings", None):
                few = min(stated.max_examples, settings.default.max_examples)
                test._hypothesis_internal_use_settings = settings(stated, max_examples=few, derandomize=True)


@pytest.fixture(scope="session")
def zh_wav() -> Path:
    """Six seconds of Mandarin, 16 kHz mono."""
    return DATA / "zh-6s.wav"


@pytest.fixture(scope="session")
def en_flac() -> Path:
    """Eleven seconds of English, 44.1 kHz stereo."""
    return DATA / "en-11s-jfk.flac"
