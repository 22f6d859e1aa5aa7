"""`make bench-peers-whisper`: measure this project, openai-whisper and faster-whisper with the same true weights.

Needs `make real-data`. All programs transcribe the beginning of the long English recording, and an 11 s clip,
each with its own pipeline, greedily.
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import soundfile

import funasr_cli
from funasr_cli.audio.decode import load_audio
from funasr_cli.benchmarks.report import describe_machine
from funasr_cli.errors import FunASRError, SetupError
from funasr_cli.measure import Spread
from tools.accuracy.texts import text_rates
from tools.accuracy.truth import TruePhrase, read_truth
from tools.peers.engines import Engine, Worker
from tools.peers.measure import PAUSE_S
from tools.real_data.cache import LONG, WHISPER, root

RATE_HZ = 16_000
SHORT = Path(__file__).parents[2] / "tests/data/en-11s-jfk.flac"
OURS = "whisper-base-ours"
OPENAI, FASTER = "openai-whisper, float32", "faster-whisper"
ENGINES = (
    Engine("funasr-cli, MLX float32", "ours", "run_ours_whisper.py", OURS, "", ("mlx", "float32")),
    Engine("funasr-cli, native float32", "ours", "run_ours_whisper.py", OURS, "", ("native", "float32")),
    Engine("funasr-cli, native int8", "ours", "run_ours_whisper.py", OURS, "", ("native", "int8")),
    Engine(OPENAI, "whisper", "run_openai_whisper.py", "whisper-base-openai", ""),
    *(
        Engine(f"{FASTER}, {kind}, {order}", "whisper", "run_faster_whisper.py", "whisper-base-ctranslate2", "",
               (kind, order))
        for kind in ("float32", "int8")
        for order in ("batched", "in turn")
    ),
)  # fmt: skip
HEAD = """# Whisper base: this project, openai-whisper and faster-whisper

The same weights (OpenAI's, float16 on disk) and the same recordings on one machine, in turns, in one run. Every
program stays loaded in a process with the same number of threads, is asked once before it is measured, and uses
its own pipeline, greedily: this project and faster-whisper "batched" cut at pauses and decode windows in a batch
without times; openai-whisper and faster-whisper "in turn" decode one window after the other, with times. Word
errors are counted after Whisper's own normalisation. `make bench-peers-whisper` writes this page.

"""


def main() -> int:
    """Parse the command line, measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.peers.whisper", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for environment, model and results")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the long recording")
    parser.add_argument("--threads", type=int, default=2, help="threads of every program")
    parser.add_argument("--trials", type=int, default=3, help="rounds")
    parser.add_argument("--engines", nargs="+", default=[""], help="only programs whose names begin like this")
    options = parser.parse_args()
    try:
        found = measure(options)
    except FunASRError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    options.out.write_text(write_page(found), encoding="utf-8")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the programs in turns, save the results in the state folder, and return them."""
    folder = link_checkpoints(options.state)
    short, long, phrases = write_recordings(options.state, options.minutes)
    answers: dict[str, Any] = {}
    with ExitStack() as stack:
        workers = []
        for engine in ENGINES:
            if not engine.name.startswith(tuple(options.engines)):
                continue
            own = engine.environment == "ours"
            python = Path(sys.executable) if own else options.state / engine.environment / "bin/python"
            log = options.state / f"{engine.name}.log"
            try:
                worker = stack.enter_context(Worker(engine, python, folder, options.threads, log))
            except FunASRError as error:
                print(f"{engine.name}: not measured: {error.message} {error.hint}", file=sys.stderr, flush=True)
                continue
            worker.ask([short], 0)
            workers.append(worker)
            answers[engine.name] = {"versions": worker.versions, "short": [], "long": []}
        for _ in range(options.trials):
            for worker in workers:
                for name, path in (("short", short), ("long", long)):
                    time.sleep(PAUSE_S)
                    answer = worker.ask([path], 0)
                    answers[worker.engine.name][name].append(answer)
                    print(f"{worker.engine.name}, {name}: {answer['total_s']:.2f} s", file=sys.stderr, flush=True)
    found = {
        "machine": describe_machine(),
        "threads": options.threads,
        "durations_s": [soundfile.info(path).duration for path in (short, long)],
        "text": " ".join(phrase.text for phrase in phrases),
        "answers": answers,
    }
    (options.state / "whisper.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    return found


def link_checkpoints(state: Path) -> Path:
    """Return a folder with the weights in every layout; convert them for this project, once."""
    folder = state / "whisper-checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for layout in ("openai", "hf", "ctranslate2"):
        source = root() / f"{WHISPER}-{layout}"
        if not source.is_dir():
            raise SetupError(f"{source}: not found", "`make real-data` fetches it", code="model-missing")
        (folder / source.name).unlink(missing_ok=True)
        (folder / source.name).symlink_to(source)
    if not (folder / OURS).is_dir():
        funasr_cli.convert(folder / "whisper-base-hf", folder / OURS, dtype="float32", verify="off")
    return folder


def write_recordings(state: Path, minutes: float) -> tuple[Path, Path, list[TruePhrase]]:
    """Write the clip and the beginning of the long recording at 16 kHz; return both, and the phrases."""
    source = root() / LONG / "as-recorded.wav"
    phrases = [phrase for phrase in read_truth(source) if phrase.span_s[1] <= 60 * minutes]
    end = round(phrases[-1].span_s[1] * RATE_HZ)
    paths = state / "whisper-short.wav", state / "whisper-long.wav"
    soundfile.write(paths[0], load_audio(SHORT, RATE_HZ).samples, RATE_HZ, subtype="PCM_16")
    soundfile.write(paths[1], load_audio(source, RATE_HZ).samples[:end], RATE_HZ, subtype="PCM_16")
    return *paths, phrases


def write_page(found: dict[str, Any]) -> str:
    """Return the page."""
    machine, (short_s, long_s) = found["machine"], found["durations_s"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {found['threads']} threads for every program.",
        "",
        f"| program | clip of {short_s:.0f} s | recording of {long_s:.0f} s | times real time "
        f"| times {OPENAI} | word errors |",
        "|---|---|---|---|---|---|",
    ]
    medians = {
        name: [Spread.of([answer["total_s"] for answer in answers[kind]]) for kind in ("short", "long")]
        for name, answers in found["answers"].items()
    }
    for name, (short, long) in medians.items():
        errors, _ = text_rates([(found["text"], found["answers"][name]["long"][0]["texts"][0])], "en")
        ratio = f"{long.median / medians[OPENAI][1].median:.2f}" if OPENAI in medians else "-"
        lines.append(
            f"| {name} | {_seconds(short)} | {_seconds(long)} | {long_s / long.median:.1f} | {ratio} "
            f"| {errors.percent:.2f} % ({errors.edits} of {errors.total}) |"
        )
    versions = {key: value for answers in found["answers"].values() for key, value in answers["versions"].items()}
    lines += [
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
    ]
    return HEAD + "\n".join(lines) + "\n"


def _seconds(spread: Spread) -> str:
    return f"{spread.median:.2f} s ({spread.low:.2f}-{spread.high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
