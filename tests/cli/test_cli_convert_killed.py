"""`funasr convert`, killed at any moment: the folder with the model's name is always complete."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.killing import Death, victims
from support.running import tree

import funasr_cli
from funasr_cli.families.load import load_model

pytestmark = pytest.mark.slow
KILLS = 50
OPTIONS = ("--dtype", "bfloat16", "--quiet", "--verify", "off")


class Models:
    """The models that the folder may contain, and those that were found in it."""

    def __init__(self, old: Path, new: Path) -> None:
        self.old = old
        self.contents = {"old": tree(old), "new": tree(new), "nothing": {}}
        self.seen: set[str] = set()

    def lay_out(self, folder: Path, force: bool) -> Path:
        """Create a folder to convert into; return a path in it, where an old model is placed if `force` is set."""
        folder.mkdir()
        return shutil.copytree(self.old, folder / "out") if force else folder / "out"

    def check(self, out: Path) -> str:
        """Return which model is there, compared byte by byte, and assert that it loads."""
        [found] = [name for name, content in self.contents.items() if tree(out) == content]
        assert out.exists() == (found != "nothing")
        if out.exists():
            load_model(out)
        self.seen.add(found)
        return found


@pytest.fixture
def models(small_checkpoint: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    new = tmp_path_factory.mktemp("whole") / "new"
    funasr_cli.convert(str(small_checkpoint), new, dtype="bfloat16")
    assert tree(new) != tree(small_model)
    return Models(small_model, new)


@pytest.fixture(scope="module")
def kill() -> Iterator[Callable[..., Death]]:
    with victims("torch,funasr_cli.cli.app,funasr_cli.conversion.convert") as kill:
        yield kill


def arguments(source: Path, out: Path, force: bool) -> list[str]:
    return ["convert", str(source), str(out), *OPTIONS, *(["--force"] if force else [])]


@pytest.mark.skipif(sys.platform == "darwin", reason="Metal does not survive a fork")
@pytest.mark.parametrize(
    ("what", "force"),
    [
        ("end", True),
        *(
            pytest.param(what, force, marks=pytest.mark.full)
            for what in ("step", "moment")
            for force in (False, True)
        ),
    ],
)
def test_killed_while_it_converts(
    kill: Callable[..., Death], models: Models, small_checkpoint: Path, tmp_path: Path, what: str, force: bool
) -> None:
    """The command is killed after its imports: before the last steps, before each step, or at random moments.

    The renames are among the last steps. One of the random moments is chosen to fall between the two renames.
    Every step of a smaller job: `unit/test_place_faults.py`.
    """
    for _ in range(2):  # the first child is slower than the others
        whole = models.lay_out(tmp_path / "whole", force)
        run = kill("command", *arguments(small_checkpoint, whole, force), within=whole.parent)
        assert run.exit_code == 0
        shutil.rmtree(whole.parent)
    assert run.steps > 20
    steps = [{"at_step": step} for step in range(run.steps, 0, -1)]
    moments = [{"after_s": random.Random(number).uniform(0, run.writing_s)} for number in range(KILLS)]
    killed = 0
    for number, when in enumerate({"end": steps[:12], "step": steps, "moment": moments + steps}[what]):
        if what == "moment" and number >= KILLS and (not force or "nothing" in models.seen):
            break
        out = models.lay_out(tmp_path / str(number), force)
        death = kill("command", *arguments(small_checkpoint, out, force), within=out.parent, **when)
        killed += death.exit_code == -signal.SIGKILL
        found = models.check(out)
        other = out.parent / "other"
        again = kill("command", *arguments(small_checkpoint, other, False), within=out.parent)
        assert again.exit_code == 0
        assert tree(other) == models.contents["new"]
        # Between the two renames, the old model is moved aside; the next conversion has put it back.
        assert models.check(out) == ("old" if force and found == "nothing" else found)
        assert {path.name for path in out.parent.iterdir()} <= {"out", "other"}
        shutil.rmtree(out.parent)
    if what == "moment":
        assert killed
        assert not force or "nothing" in models.seen
    else:
        assert killed == len(steps[:12] if what == "end" else steps)
        assert models.seen == ({"old", "nothing", "new"} if force else {"nothing", "new"})
