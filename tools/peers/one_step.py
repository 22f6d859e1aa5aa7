"""`make bench-peers`, second part: Paraformer and SenseVoice, compared with FunASR.

These models read a clip in one step. Fun-ASR-Nano, which writes token by token, is measured next to them.
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from funasr_cli.benchmarks.report import describe_machine
from funasr_cli.errors import FunASRError
from funasr_cli.measure import Spread
from tools.peers.checkpoint import write_clips
from tools.peers.engines import Engine, Worker
from tools.peers.measure import PAUSE_S
from tools.peers.one_step_checkpoints import NANO, PARAFORMER, SENSE_VOICE, write_checkpoints

TITLES = {PARAFORMER: "Paraformer", SENSE_VOICE: "SenseVoiceSmall", NANO: "Fun-ASR-Nano"}
OURS = (("native", "int8"), ("native", "float32"), ("mlx", "float32"))
ENGINES = (
    *(
        Engine(f"{TITLES[kind]}: funasr-cli, {engine} {dtype}", "ours", "run_ours_one_step.py", kind, kind,
               (engine, dtype), batches=True)
        for kind in (PARAFORMER, SENSE_VOICE)
        for engine, dtype in OURS
    ),
    *(
        Engine(f"{TITLES[kind]}: funasr, float32", "torch", "run_funasr_one_step.py", f"{kind}-funasr", kind,
               batches=True)
        for kind in (PARAFORMER, SENSE_VOICE)
    ),
    Engine("Fun-ASR-Nano: funasr-cli, native int8", "ours", "run_ours.py", NANO, NANO, ("native", "int8")),
)  # fmt: skip
HEAD = """# Models that read a clip in one step

Paraformer and SenseVoice with random weights of the releases' sizes (216 and 234 million parameters), computed
by this project and by FunASR on PyTorch, in turns, in separate processes with the same number of threads.
Fun-ASR-Nano with 64 tokens is measured next to them. Clips are generated noise with the rhythm of speech. The
predictor of Paraformer is set so that it writes 20 tokens for a clip of 6 s. Random weights cost as much as
real ones, but texts are meaningless. Conversion stores weights in bfloat16, FunASR keeps float32: where two
tokens are nearly as likely, that decides. Stored in float32, Paraformer's texts are FunASR's (see
[Paraformer](../paraformer.md#differences-from-funasr)). `make bench-peers` writes this page.

"""


def main() -> int:
    """Parse the command line, measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.peers.one_step", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for environment, models and results")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--duration", type=float, default=6.0, help="length of each clip, in seconds")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of Paraformer for a clip")
    parser.add_argument("--nano-tokens", type=int, default=64, help="tokens of Fun-ASR-Nano for a clip")
    parser.add_argument("--clips", type=int, default=8, help="clips in a batch")
    parser.add_argument("--threads", type=int, default=2, help="threads of every program")
    parser.add_argument("--trials", type=int, default=5, help="rounds")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=TITLES,
        default=list(TITLES),
        help="measure these, keeping others of an earlier run",
    )
    parser.add_argument("--prepare", action="store_true", help="write only the models and the clips")
    options = parser.parse_args()
    try:
        clips = write_clips(options.state / "clips", options.clips, options.duration)
        folder = write_checkpoints(options.state, clips[0], options.tokens)
        if options.prepare:
            return 0
        path = options.state / "one-step.json"
        found = measure(options, folder, clips)
        if path.is_file():
            found["answers"] = json.loads(path.read_text(encoding="utf-8"))["answers"] | found["answers"]
    except FunASRError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    options.out.write_text(write_page(found), encoding="utf-8")
    return 0


def measure(options: argparse.Namespace, folder: Path, clips: list[Path]) -> dict[str, Any]:
    """Measure the programs in turns, one model after the other, so that few are in memory."""
    answers: dict[str, Any] = {}
    for kind in options.models:
        with ExitStack() as stack:
            workers = []
            for engine in (engine for engine in ENGINES if engine.asked == kind):
                own = engine.environment == "ours"
                python = Path(sys.executable) if own else options.state / engine.environment / "bin/python"
                log = options.state / f"{engine.name}.log"
                workers.append(stack.enter_context(Worker(engine, python, folder, options.threads, log)))
            tokens = options.nano_tokens if kind == NANO else options.tokens
            for worker in workers:
                worker.ask(clips[:1], tokens)
                answers[worker.engine.name] = {"versions": worker.versions, "clip": [], "batch": []}
            for _ in range(options.trials):
                for worker in workers:
                    for name, asked in (("clip", clips[:1]), ("batch", clips)):
                        if name == "clip" or worker.engine.batches:
                            time.sleep(PAUSE_S)
                            answer = worker.ask(asked, tokens)
                            answers[worker.engine.name][name].append(answer)
                            shown = f"{worker.engine.name}, {name}: {answer['total_s']:.3f} s"
                            print(f"{shown}, others used {answer['elsewhere']} cores", file=sys.stderr, flush=True)
                    answers[worker.engine.name]["peak_bytes"] = worker.peak_bytes()
    return {
        "machine": describe_machine(),
        "threads": options.threads,
        "clips": options.clips,
        "duration_s": options.duration,
        "answers": answers,
    }


def write_page(found: dict[str, Any]) -> str:
    """Return the page."""
    machine, answers = found["machine"], found["answers"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {found['threads']} threads for every program.",
        "",
        f"| model and program | clip of {found['duration_s']:g} s | times FunASR "
        f"| batch of {found['clips']}, a clip | peak memory | same text as FunASR |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in ((engine.name, answers[engine.name]) for engine in ENGINES if engine.name in answers):
        title = name.partition(":")[0]
        reference = answers.get(f"{title}: funasr, float32")
        batch = (
            Spread.of([answer["total_s"] / found["clips"] for answer in own["batch"]]) if own["batch"] else None
        )
        clip = Spread.of([answer["total_s"] for answer in own["clip"]])
        ratio = same = "-"
        if reference:
            ratio = f"{clip.median / Spread.of([answer['total_s'] for answer in reference['clip']]).median:.2f}"
            same = "yes" if own["clip"][0]["texts"] == reference["clip"][0]["texts"] else "no"
        lines.append(
            f"| {name} | {_seconds(clip)} | {ratio} | {_seconds(batch) if batch else '-'} "
            f"| {own['peak_bytes'] / 1e9:.2f} GB | {same} |"
        )
    versions = {
        key: value for own in answers.values() for key, value in own["versions"].items() if key != "decoder"
    }
    lines += [
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
    ]
    return HEAD + "\n".join(lines) + "\n"


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.3f} s ({spread.low:.3f}-{spread.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
