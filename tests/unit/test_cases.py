"""Benchmark cases take turns, and each has its own measurements."""

from pathlib import Path

import pytest

from funasr_cli.benchmarks.cases import run_cases
from funasr_cli.benchmarks.subjects import Subject, load_subjects, make_workloads, together
from funasr_cli.options import TranscribeOptions

OPTIONS = TranscribeOptions(exact_tokens=2)


@pytest.fixture
def subjects(small_model: Path) -> list[Subject]:
    reported: list[str] = []
    loaded = load_subjects([small_model], None, 2, reported.append)
    assert reported == ["loading small, 1 of 2", "loading small, 2 of 2"]
    return loaded


@pytest.mark.slow
def test_cases_take_turns(subjects: list[Subject], tmp_path: Path) -> None:
    workloads = make_workloads((), (1.0, 2.0), tmp_path)
    reported: list[str] = []
    costs = run_cases(subjects, workloads, (1, 2), ("auto",), OPTIONS, 2, None, reported.append)
    names = [
        f"Small-Nano, generated {duration} s, batch of {size}" for duration in (1, 2) for size in (1, 2)
    ]  # fmt: skip
    turns = ("warming up", "1 of 2", "2 of 2")
    assert reported == [f"{turn}: {name}" for turn in turns for name in names]
    assert [cost.case for cost in costs] == names
    for cost in costs:
        assert (cost.recordings, cost.segments, cost.tokens) == (1, 1, 2)
        assert cost.stages["total_s"].low < cost.stages["total_s"].high, "the two trials must differ"


def test_files_with_the_same_name(subjects: list[Subject], short_wav: Path, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "a.wav" for folder in ("x", "y")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(short_wav.read_bytes())
    workloads = make_workloads((*paths, short_wav), (), tmp_path)
    costs = run_cases(subjects, workloads, (None,), ("auto",), OPTIONS, 1, None, lambda _: None)
    assert [cost.case for cost in costs] == [f"Small-Nano, {name}" for name in (*paths, "short.wav")]


def test_recordings_together(short_wav: Path, zh_wav: Path) -> None:
    workload = together((short_wav, zh_wav), 3)
    assert [recording.name for recording in workload.recordings] == [str(short_wav), str(zh_wav), str(short_wav)]
    assert together((short_wav, zh_wav), 1).paths == (short_wav,)
