"""What `funasr bench` refuses: exit code, error code and the offending value. Nothing is written."""

import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
from support.running import funasr, invoke, tree

from funasr_cli import demo

CONFLICT, VALUE, FILE, NO_MEASUREMENT = "options-conflict", "option-value", "file-unreadable", "not-a-measurement"

# Arguments of `funasr bench`, the error's code and the value it names. No model is looked up.
USAGE = [
    ("", CONFLICT, "--rtf, --batches, --drafts and --memory"),
    ("--rtf --memory", CONFLICT, "2 measurements chosen"),
    ("--rtf --json --markdown", CONFLICT, "--json with --markdown"),
    ("--rtf --batch-sizes 1,x", VALUE, "--batch-sizes 1,x"),
    ("--rtf --batch-sizes 0", VALUE, "at least 1"),
    ("--rtf --batch-sizes 4,1.5", VALUE, "--batch-sizes 4,1.5"),
    ("--rtf --durations 5,0", VALUE, "at least 0.1"),
    ("--rtf --durations nan", VALUE, "--durations nan"),
    *(
        (f"--{mode} {typed}", CONFLICT, f"{typed.split()[0]} has no effect with --{mode}")
        for mode, options in {
            "batches": ["--durations 5"],
            "drafts": ["--durations 4", "--draft off"],
            "memory": [
                "--batch-sizes 1", "--recordings 1", "--trials 1", "--exact-tokens 1", "--itn", "--refs x",
                "--draft off",
            ],
        }.items()
        for typed in options
    ),
    ("--rtf --refs x --exact-tokens 3", CONFLICT, "--refs with --exact-tokens"),
    ("--rtf --refs x --durations 3", CONFLICT, "--refs with --durations"),
    ("--batches --refs x --synthetic demo", CONFLICT, "--refs with --synthetic"),
    ("--rtf --refs none.tsv", FILE, "none.tsv: no such file"),
    ("--rtf --refs latin.tsv", FILE, "latin.tsv"),
    ("--rtf --refs space.tsv", "references-wrong", "space.tsv:2"),
    ("--rtf --refs twice.tsv", "references-wrong", "twice.tsv:3: a.flac"),
    ("--rtf --compare none.json", FILE, "none.json"),
    ("--rtf --compare list.json", NO_MEASUREMENT, "list.json"),
    ("--rtf --compare newer.json", NO_MEASUREMENT, "newer.json: format version 2"),
    ("--rtf --compare memory.json", CONFLICT, "memory.json: measured with --memory, not --rtf"),
    ("--memory --compare memory.json", NO_MEASUREMENT, "memory.json"),
    ("--memory --compare cases.json", NO_MEASUREMENT, "cases.json"),
]  # fmt: skip

# Refused by Typer or by code shared with other commands, and other failures, with the exit code.
ELSEWHERE = [
    ("--rtf --plt a.png", 2, "--plt"),
    ("--rtf --trials 0", 2, "--trials"),
    ("--rtf --synthetic demo --synthetic huge", 2, "'huge'"),
    ("--rtf --exact-tokens 0", 2, "--exact-tokens is 0"),
    ("--rtf --plot a.gif", 2, "a.gif"),
    ("--rtf --plot a.svg", 1, "a.svg"),
    ("--rtf --plot none/a.svg", 1, "none"),
    ("--rtf -m demo a.flac --trials 1 --exact-tokens 1 --plot link.svg", 1, "link.svg"),  # a dangling link
    ("--rtf -m nowhere", 3, "nowhere"),
    ("--memory -m calls", 3, "calls"),
    ("--rtf -m demo a.flac -l ko", 2, "'ko'"),
    ("--rtf -m demo calls", 1, "calls"),
    ("--rtf -m demo a.flac gone.wav", 1, "gone.wav"),
    ("--batches -m demo space.tsv", 1, "space.tsv"),
    ("--memory -m demo gone.wav --durations 1", 1, "gone.wav"),
    ("--rtf -m demo a.flac --refs other.tsv", 2, "a.flac: has no reference text"),
    ("--drafts --synthetic demo", 2, "synthetic demo does not support --drafts"),
]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `funasr bench` runs in."""
    monkeypatch.chdir(tmp_path)
    measured = '{"format": "funasr-bench", "format_version": %d, "mode": "memory"%s}'
    texts = {
        "latin.tsv": b"a.flac\t\xe9\n", "space.tsv": b"b.flac\tx\na.flac text\n", "other.tsv": b"b.flac\tx\n",
        "twice.tsv": b"a.flac\tx\n\na.flac\ty\n", "list.json": b"[1]", "newer.json": (measured % (2, "")).encode(),
        "memory.json": (measured % (1, "")).encode(), "a.svg": b"mine", "empty.wav": b"",
        "cases.json": (measured % (1, ', "models": [], "cases": [{}]')).encode(),
    }  # fmt: skip
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.svg").symlink_to("none/a.svg")
    (tmp_path / "calls").mkdir()
    shutil.copyfile(demo.clips()[0].path, tmp_path / "a.flac")
    return tmp_path


@pytest.mark.parametrize(("typed", "code", "value"), USAGE, ids=[row[0] for row in USAGE])
def test_refused_before_a_model_is_looked_up(typed: str, code: str, value: str, workdir: Path) -> None:
    before = tree(workdir)
    invoke("bench", *typed.split(), *(["-m", "nowhere"] if typed else [])).assert_error(2, code, value)
    assert tree(workdir) == before


@pytest.mark.parametrize(("typed", "exit_code", "value"), ELSEWHERE, ids=[row[0] for row in ELSEWHERE])
def test_other_errors(typed: str, exit_code: int, value: str, workdir: Path) -> None:
    before = tree(workdir)
    invoke("bench", *typed.split()).assert_fails(exit_code, value)
    assert tree(workdir) == before


@pytest.mark.parametrize(
    ("package", "typed", "extra"),
    [("rapidfuzz", "--refs other.tsv", "bench"), ("matplotlib", "--plot b.svg", "plot")],
)
@pytest.mark.usefixtures("workdir")
def test_a_missing_library_is_named(package: str, typed: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = invoke("bench", "--rtf", *typed.split())
    result.assert_error(5, "package-missing", package, f"the extra {extra}: see docs/install.md")


def allow_small_files_only() -> None:
    """Limit the files that this process writes to a few kilobytes, to simulate a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))


def test_no_room_for_a_synthetic_model(tmp_path: Path) -> None:
    options = {"env": {"TMPDIR": str(tmp_path)}, "preexec_fn": allow_small_files_only}
    result = funasr("bench", "--rtf", "--synthetic", "demo", **options)
    result.assert_error(1, "disk-full", "synthetic-demo", "TMPDIR")
    assert os.listdir(tmp_path) == []
