"""The nearest folder that exists."""

from pathlib import Path

import pytest

from funasr_cli.paths import nearest_existing


@pytest.mark.parametrize("below", [".", "a/b", f"{'a' * 300}/b", "file/b"])
def test_nearest_existing(tmp_path: Path, below: str) -> None:
    """A path that cannot be looked up does not exist."""
    (tmp_path / "file").touch()
    assert nearest_existing(tmp_path / below) == (tmp_path / "file" if "file" in below else tmp_path)
