"""`make check-release`: accept a release on this machine; see docs/release.md."""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from funasr_cli.benchmarks.report import describe_machine, describe_versions
from funasr_cli.benchmarks.scoring import require_rapidfuzz
from funasr_cli.cli import console
from funasr_cli.compute.backend import describe
from funasr_cli.errors import ExitCode, FunASRError, UsageError
from funasr_cli.options import BENCH_TRIALS, DEFAULT_HUB, Hub
from tools.release.acceptance import PRECISIONS, Plan, accept
from tools.release.clips import RELEASE_CLIPS, read_clips
from tools.release.judge import MEMORY_GB, RTF, TOKENS_PER_S, Line, Targets, Verdict
from tools.release.report import Setting, headings, markdown, show, tell

TARGETS = Targets()


def main(words: list[str] | None = None) -> int:
    """Parse the command line, run the checks, and return the exit code."""
    given = _parser().parse_args(words)
    try:
        return _run(given)
    except FunASRError as error:
        console.report(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:  # not exit code 1, which means that a check failed
        print(f"error: unexpected {type(error).__name__}: {error}".rstrip(": "), file=sys.stderr)
        return ExitCode.UNEXPECTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    parser.add_argument("model", help="folder or hub id of a checkpoint")
    parser.add_argument("--hub", choices=list(Hub), type=Hub, default=DEFAULT_HUB, help="hub of the model")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--recipes", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: all")
    parser.add_argument("--clips", type=Path, default=RELEASE_CLIPS, help="list of clips and texts (JSON lines)")
    parser.add_argument("--out", type=Path, help="keep the converted models here, replacing earlier ones")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: chosen by MLX")
    parser.add_argument("--trials", type=int, default=BENCH_TRIALS, help="timed runs of each clip")
    parser.add_argument("--max-rtf", dest=RTF, type=float, help=f"default: {TARGETS.rtf:g}")
    speed, memory = f"{TARGETS.tokens_per_s:g}", f"{TARGETS.memory_gb:g}"
    parser.add_argument("--min-tokens-per-s", dest=TOKENS_PER_S, type=float, help=f"default: {speed}")
    parser.add_argument("--max-memory-gb", dest=MEMORY_GB, type=float, help=f"default: {memory}")
    return parser


def _run(given: argparse.Namespace) -> int:
    if given.trials < 1:
        raise UsageError(f"--trials {given.trials}", "it must be at least 1", code="option-value")
    require_rapidfuzz()
    plan = Plan(
        model=given.model,
        clips=read_clips(given.clips),
        recipes=tuple(dict.fromkeys(given.recipes)),
        hub=given.hub,
        revision=given.revision,
        targets=_targets(given),
        trials=given.trials,
        device=given.device,
        keep=given.out is not None,
    )
    started = datetime.now(UTC).isoformat(timespec="minutes")
    shown: list[Line] = []

    def on_line(line: Line) -> None:
        if not shown:
            print(headings())
        shown.append(line)
        show(line)

    folder = nullcontext(given.out) if given.out else tempfile.TemporaryDirectory(prefix="funasr-release-")
    with folder as work:
        found = accept(plan, Path(work), on_line, tell)
    setting = Setting(started, describe(), describe_machine(), describe_versions() | found.versions, found.source)
    print(f"\nTo paste into an issue:\n\n{markdown(found.name, shown, setting)}", flush=True)
    failed = any(line.verdict == Verdict.FAIL for line in shown)
    return ExitCode.INPUT_FAILED if failed else ExitCode.OK


def _targets(given: argparse.Namespace) -> Targets:
    """Return the project's targets, with those given on the command line replaced, which apply to every device."""
    stated = {name: getattr(given, name) for name in (RTF, TOKENS_PER_S, MEMORY_GB)}
    stated = {name: value for name, value in stated.items() if value is not None}
    return replace(TARGETS, **stated, insisted=frozenset(stated))


if __name__ == "__main__":
    sys.exit(main())
