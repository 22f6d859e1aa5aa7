"""`make bench-peers`: measure this project and other programs, and write docs/reports/benchmarks.md."""

import argparse
import json
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.report import describe_machine
from funasr_cli.benchmarks.request import Size
from funasr_cli.errors import FunASRError
from tools.peers.checkpoint import CRISPASR, OURS_IN_4_BITS, write_checkpoint, write_clips, write_in_4_bits
from tools.peers.crispasr import write_crispasr
from tools.peers.engines import ENGINES, Engine, Worker
from tools.peers.measure import Plan, run
from tools.peers.page import write_page
from tools.peers.results import merge

SIZES = {"full": "random weights of the release's size, 829.8 million", "demo": "random weights, a small model"}
OF_THIS_MACHINE = ("state", "out", "from_json")
CONVERTER = "convert-funasr-to-gguf.py"


def main() -> int:
    """Parse the command line, measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.peers", description=__doc__)
    parser.add_argument(
        "--state", type=Path, required=True, help="folder for environments, checkpoint and results"
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--from-json", type=Path, help="write the page from the results of an earlier run")
    parser.add_argument("--size", choices=list(map(str, Size)), default="full", help="size of the random model")
    parser.add_argument("--threads", type=int, default=2, help="threads of every program")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each clip")
    parser.add_argument("--duration", type=float, default=6.0, help="length of each clip, in seconds")
    parser.add_argument("--clips", type=int, default=16, help="clips in a batch")
    parser.add_argument("--trials", type=int, default=5, help="rounds with one clip")
    parser.add_argument("--batch-trials", type=int, default=3, help="rounds with a batch")
    parser.add_argument("--mlx-audio-trials", type=int, default=3, help="rounds with mlx-audio, a minute each")
    parser.add_argument(
        "--engines", nargs="+", help="only programs whose names begin like this, keeping earlier results of others"
    )
    parser.add_argument("--append", action="store_true", help="add the trials to those of earlier runs")
    parser.add_argument("--prepare", action="store_true", help="write only the checkpoint and the clips")
    options = parser.parse_args()
    try:
        if options.from_json:
            found = json.loads(options.from_json.read_text(encoding="utf-8"))
        else:
            found = measure(options)
        if found:
            options.out.write_text(write_page(found), encoding="utf-8")
    except FunASRError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any] | None:
    """Measure all programs, save the results in the state folder, and return them."""
    checkpoint = write_checkpoint(options.state, options.size)
    clips = write_clips(options.state / "clips", options.clips, options.duration)
    path = options.state / f"peers-{options.size}.json"
    keep = (options.engines or options.append) and path.is_file()
    saved = json.loads(path.read_text(encoding="utf-8")) if keep else None
    engines = wanted_engines(options, saved)
    if any(engine.layout == OURS_IN_4_BITS for engine in engines):
        write_in_4_bits(checkpoint)
    if any(engine.environment == CRISPASR for engine in engines):
        write_crispasr(checkpoint, options.state / CRISPASR / "bin/python", options.state / CONVERTER)
    if options.prepare:
        return None
    plan = Plan(clips, options.tokens, options.trials, options.batch_trials, options.mlx_audio_trials)
    started = datetime.now(UTC).isoformat(timespec="minutes")
    with ExitStack() as stack:
        workers = []
        for engine in engines:
            log(f"loading {engine.name}")
            own = engine.environment == "ours"
            python = Path(sys.executable) if own else options.state / engine.environment / "bin/python"
            output = options.state / f"{engine.name}.log"
            workers.append(stack.enter_context(Worker(engine, python, checkpoint, options.threads, output)))
        results = run(workers, plan, log)
        versions = {worker.engine.name: worker.versions for worker in workers}
    found = {
        "commands": [shlex.join(["python", "-m", "tools.peers", *used_options(options)])],
        "machine": describe_machine(),
        "threads": options.threads,
        "model": SIZES[options.size],
        "tokens": options.tokens,
        "clips": options.clips,
        "duration_s": options.duration,
        "asked": {engine.name: engine.asked for engine in engines},
        "versions": versions,
        "measured": {engine.name: [started] for engine in engines},
        "results": results,
    }
    found = merge(saved, found, options.append)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    log(f"saved {path}")
    return found


def wanted_engines(options: argparse.Namespace, saved: dict[str, Any] | None) -> list[Engine]:
    """Return the programs to measure; operations that an earlier run counted are not counted again."""
    engines = [engine for engine in ENGINES if engine.name.startswith(tuple(options.engines or [""]))]
    if options.size != "full":  # its converter knows only this size
        engines = [engine for engine in engines if engine.environment != CRISPASR]
    counted = saved["results"] if saved and options.append else {}
    return [
        replace(engine, counts=False) if counted.get(engine.name, {}).get("work") else engine for engine in engines
    ]


def used_options(options: argparse.Namespace) -> list[str]:
    """Return all settings as options, except paths of this machine."""
    words = []
    for name, value in vars(options).items():
        if name not in OF_THIS_MACHINE and value not in (None, False):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def log(line: str) -> None:
    """Print a line of progress with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
