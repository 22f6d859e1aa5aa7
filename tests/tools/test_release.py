"""The judgement of release measurements: targets, texts, verdicts; and a measuring process that is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.errors import refused

from funasr_cli.benchmarks.cases import CaseCost
from funasr_cli.benchmarks.request import STAGES
from funasr_cli.demo import MODEL, clips
from funasr_cli.errors import ExitCode
from funasr_cli.measure import Spread
from funasr_cli.verification.proof import LARGEST_AGAINST_PYTORCH, LARGEST_IF_EXACT
from tools.release import __main__ as command
from tools.release import acceptance
from tools.release.clips import Clip
from tools.release.judge import (
    MEMORY_RECIPE,
    Line,
    Targets,
    Verdict,
    cost_lines,
    reference_line,
    summary,
    text_line,
)
from tools.release.measure import measure, measure_apart

GOOD = CaseCost(
    case="a", model="a", audio="a.wav", recordings=1, batch_size=None, draft="auto", audio_s=6.0, segments=1,
    tokens=20, decoder_calls=20, drafted=0, accepted=0, stages={stage: Spread.of([0.1]) for stage in STAGES},
    tokens_per_s=Spread.of([40.0]), rtf=Spread.of([0.05]),
    peak_mlx_bytes=2_000_000_000, peak_process_bytes=2_500_000_000, errors=None, texts=("a",),
)  # fmt: skip
TARGETS = Targets()
MANDARIN = Clip(Path("zh-6s.wav"), "zh", "我想问我在滨海新区有房", 0)
ENGLISH = Clip(Path("jfk.flac"), "en", "Ask not what your country can do for you", 12.5)


def verdicts(cases: list[CaseCost], recipe: str, targets: Targets = TARGETS, on_gpu: bool = True) -> list[str]:
    """Return the verdicts on RTF, tokens per second, memory of MLX and memory of the process."""
    return [str(line.verdict) for line in cost_lines(recipe, cases, targets, on_gpu=on_gpu)]


def test_figures_within_the_targets() -> None:
    assert verdicts([GOOD], "4") == ["PASS", "PASS", "PASS", "PASS"]
    assert verdicts([GOOD], "8") == ["PASS", "PASS", "not judged", "not judged"]
    assert verdicts([GOOD], "4", on_gpu=False) == ["not judged"] * 4


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"rtf": Spread.of([0.1])}, 0),  # the limit itself is not enough
        ({"tokens_per_s": Spread.of([29.9])}, 1),
        ({"peak_mlx_bytes": 3_000_000_000}, 2),
        ({"peak_process_bytes": 3_000_000_000}, 3),
    ],
)
def test_the_worst_clip_counts(change: dict[str, object], failing: int) -> None:
    wanted = ["PASS"] * 4
    wanted[failing] = "FAIL"
    bad = replace(GOOD, **change)  # type: ignore[arg-type]
    assert verdicts([GOOD, bad], "4") == wanted
    assert verdicts([bad, GOOD], "4") == wanted
    assert verdicts([bad], "4", on_gpu=False) == ["not judged"] * 4


def test_explicit_targets_also_apply_on_a_cpu() -> None:
    targets = Targets(rtf=0.01, insisted=frozenset({"rtf"}))
    assert verdicts([GOOD], "none", targets, on_gpu=False) == ["FAIL", *["not judged"] * 3]
    lines = list(cost_lines("none", [GOOD], targets, on_gpu=False))
    assert [line.wanted for line in lines] == [
        "under 0.01", "at least 30 on a GPU", "under 3 GB at 4 bits on a GPU", "under 3 GB at 4 bits on a GPU",
    ]  # fmt: skip
    assert [line.found for line in lines] == ["0.050", "40.0", "2.00 GB", "2.50 GB"]


@pytest.mark.parametrize(
    ("text", "verdict", "found"),
    [
        ("我想问我在滨海新区有房", "PASS", "0.0 % errors: 我想问我在滨海新区有房"),
        ("我想问，我在 滨海新区有房。", "PASS", "0.0 % errors: 我想问，我在 滨海新区有房。"),
        ("我想问我在滨海新区有房吗", "FAIL", "9.1 % errors: 我想问我在滨海新区有房吗"),
        ("我想问我在滨海新区有", "FAIL", "9.1 % errors: 我想问我在滨海新区有"),
        ("", "FAIL", "100.0 % errors: (nothing)"),
        ("啊" * 300, "FAIL", f"2727.3 % errors: {'啊' * 200}..."),
    ],
)
def test_text_up_to_punctuation_and_spaces(text: str, verdict: str, found: str) -> None:
    line = text_line("4", MANDARIN, text)
    assert line == Line(Verdict(verdict), "4", "zh-6s.wav, text", found, "at most 0 %: 我想问我在滨海新区有房")


def test_words_up_to_a_limit() -> None:
    """One wrong word of nine is 11.1 %."""
    assert text_line("8", ENGLISH, "ask NOT what our country can do, for you!").verdict == Verdict.PASS
    assert text_line("8", ENGLISH, "ask not what our country could do for you").verdict == Verdict.FAIL


@pytest.mark.parametrize(
    ("got", "theirs", "verdict", "found"),
    [  # equal to PyTorch passes, however wrong both are; better than PyTorch is not equal
        ("What?", "what", "PASS", "0.0 % differs; 88.9 % errors, PyTorch 88.9 %"),
        ("", "?", "PASS", "0.0 % differs; 100.0 % errors, PyTorch 100.0 %"),
        (
            ENGLISH.text,
            ENGLISH.text.replace("can do", "does"),
            "FAIL",
            "25.0 % differs; 0.0 % errors, PyTorch 22.2 %",
        ),
        ("what", "", "FAIL", "only one has words; 88.9 % errors, PyTorch 100.0 %"),
        ("?", "what", "FAIL", "only one has words; 100.0 % errors, PyTorch 88.9 %"),
    ],
)
def test_compared_with_pytorch(got: str, theirs: str, verdict: str, found: str) -> None:
    clip = replace(ENGLISH, max_error_percent=100) if "only one" in found else ENGLISH
    line = reference_line("8", clip, got, theirs)
    assert (line.verdict, line.what, line.found) == (Verdict(verdict), "jfk.flac, compared with PyTorch", found)
    assert line.wanted == f"at most {clip.max_error_percent:g} % differs"


def test_summary_hides_nothing() -> None:
    def of(*names: str) -> str:
        return summary(Line(Verdict(name), "4", "", "", "") for name in names)

    assert of("PASS", "not judged", "PASS", "not measured") == "PASS (2 PASS, 1 not judged, 1 not measured)"
    assert of("PASS", "FAIL", "not measured") == "FAIL (1 FAIL, 1 PASS, 1 not measured)"


def test_the_page_states_the_targets() -> None:
    page = (Path(__file__).parents[2] / "docs/release.md").read_text(encoding="utf-8")
    assert f"| RTF | seconds of computing for each second of audio | under {TARGETS.rtf:g} |" in page
    assert f"| tokens per second | of the decoding | at least {TARGETS.tokens_per_s:g} |" in page
    assert f"each under {TARGETS.memory_gb:g} GB with recipe `{MEMORY_RECIPE}` |" in page
    assert f"where no value was rounded, largest relative error at most {LARGEST_IF_EXACT:g} |" in page
    assert f"in float32 | largest relative error at most {LARGEST_AGAINST_PYTORCH:g} |" in page


def die(_: str) -> None:
    """Kill this process, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed() -> None:
    with refused("process-ended", "model: "):
        measure_apart(MODEL, [], 1, None, die)


@pytest.mark.slow
def test_an_unexpected_error_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other recipes are still checked, and the block is still printed."""

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("[metal::malloc] too much")

    monkeypatch.setattr(acceptance, "measure_apart", out_of_memory)
    lines: list[Line] = []
    plan = acceptance.Plan(str(MODEL), (MANDARIN,), recipes=("none", "8"))
    acceptance.accept(plan, tmp_path, lines.append, lambda _: None)
    assert [line for line in lines if line.verdict == Verdict.FAIL] == [
        Line(Verdict.FAIL, recipe, "transcribes", "unexpected RuntimeError: [metal::malloc] too much", "no error")
        for recipe in ("none", "8")
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_outside_of_the_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No block is printed, and the exit code differs from that of a FAIL."""

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "accept", full_disk)
    assert command.main([str(MODEL)]) == ExitCode.UNEXPECTED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: unexpected OSError: [Errno 28] No space left on device\n"


@pytest.mark.slow
def test_texts_read_whole_and_as_usual() -> None:
    """The first text skips a pause and the second does not. With the demo model they are the same."""
    clip = clips()[3]
    wanted = Clip(clip.path, clip.language, clip.written, 0)
    measured = measure(MODEL, [wanted], 2, None, lambda _: None)
    assert [case.texts for case in measured.cases] == [(clip.written,)]
    assert measured.whole_texts == (clip.written,)
    assert measured.cases[0].rtf.low > 0
