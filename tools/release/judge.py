"""Targets of a release, and the rules that judge measurements: plain data, nothing is measured here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from funasr_cli.benchmarks.cases import CaseCost
from funasr_cli.benchmarks.scoring import error_rate, units
from tools.release.clips import Clip

SHOWN_CHARACTERS = 200  # of a text; the expected ones are shorter
MEMORY_RECIPE = "4"  # the recipe with a memory target
RTF, TOKENS_PER_S, MEMORY_GB = "rtf", "tokens_per_s", "memory_gb"


class Verdict(StrEnum):
    """The result of a check."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_JUDGED = "not judged"  # measured, but there is no target for this device or recipe
    NOT_MEASURED = "not measured"  # not measured; the line gives the reason


@dataclass(frozen=True)
class Line:
    """The result of one check on one recipe: what was found, or why nothing was, and what is required."""

    verdict: Verdict
    recipe: str
    what: str
    found: str
    wanted: str


@dataclass(frozen=True)
class Targets:
    """The project's targets, for one recording at a time on a GPU.

    Attributes:
        rtf: seconds of computing per second of audio must be below this.
        tokens_per_s: minimum decoding speed.
        memory_gb: peak memory at `MEMORY_RECIPE`, of MLX and of the process, must be below this.
        insisted: fields set by the caller, which are also judged on a CPU.
    """

    rtf: float = 0.1
    tokens_per_s: float = 30.0
    memory_gb: float = 3.0
    insisted: frozenset[str] = frozenset()


def passed(good: bool) -> Verdict:
    """Return the verdict on a measurement."""
    return Verdict.PASS if good else Verdict.FAIL


def shorten(text: str) -> str:
    """Truncate a text that runs away."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def text_line(recipe: str, clip: Clip, got: str) -> Line:
    """Compare a clip's text with the expected one."""
    percent = error_rate([(clip.text, got)]).percent
    return Line(
        passed(percent <= clip.max_error_percent),
        recipe,
        f"{clip.path.name}, text",
        f"{percent:.1f} % errors: {shorten(got) or '(nothing)'}",
        f"at most {clip.max_error_percent:g} %: {clip.text}",
    )


def reference_line(recipe: str, clip: Clip, got: str, theirs: str) -> Line:
    """Compare a clip's text with PyTorch's; the difference may be as large as the clip's allowed error."""
    apart = error_rate([(theirs, got)]).percent
    own, other = (error_rate([(clip.text, text)]).percent for text in (got, theirs))
    one_is_empty = bool(units(got)) != bool(units(theirs))  # no error rate shows it if PyTorch's text is empty
    differs = "only one has words" if one_is_empty else f"{apart:.1f} % differs"
    return Line(
        passed(not one_is_empty and apart <= clip.max_error_percent),
        recipe,
        f"{clip.path.name}, compared with PyTorch",
        f"{differs}; {own:.1f} % errors, PyTorch {other:.1f} %",
        f"at most {clip.max_error_percent:g} % differs",
    )


def cost_lines(recipe: str, cases: Sequence[CaseCost], targets: Targets, *, on_gpu: bool) -> Iterator[Line]:
    """Yield speed and memory; of several clips, the worst."""

    def line(name: str, what: str, found: str, wanted: str, good: bool, *, applies: bool = True) -> Line:
        here = on_gpu or name in targets.insisted
        verdict = passed(good) if here and applies else Verdict.NOT_JUDGED
        return Line(verdict, recipe, what, found, wanted if here else f"{wanted} on a GPU")

    rtf = max(case.rtf.median for case in cases)
    yield line(RTF, "RTF", f"{rtf:.3f}", f"under {targets.rtf:g}", rtf < targets.rtf)
    speed = min(case.tokens_per_s.median for case in cases)
    enough = f"at least {targets.tokens_per_s:g}"
    yield line(TOKENS_PER_S, "tokens per second", f"{speed:.1f}", enough, speed >= targets.tokens_per_s)
    sizes = {
        "memory of MLX": max(case.peak_mlx_bytes for case in cases) / 1e9,
        "memory of the process": max(case.peak_process_bytes for case in cases) / 1e9,
    }
    little = f"under {targets.memory_gb:g} GB at {MEMORY_RECIPE} bits"
    for what, size_gb in sizes.items():
        good, applies = size_gb < targets.memory_gb, recipe == MEMORY_RECIPE
        yield line(MEMORY_GB, what, f"{size_gb:.2f} GB", little, good, applies=applies)


def summary(lines: Iterable[Line]) -> str:
    """Count the lines by verdict, failures first."""
    verdicts = [line.verdict for line in lines]
    counts = {verdict: verdicts.count(verdict) for verdict in (Verdict.FAIL, *Verdict)}
    head = passed(not counts[Verdict.FAIL])
    return f"{head} ({', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)})"
