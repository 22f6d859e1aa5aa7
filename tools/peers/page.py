"""Write docs/reports/benchmarks.md from the results of a run."""

import math
from typing import Any

from funasr_cli.measure import Spread

INTRODUCTION = """\
# Benchmarks: this project and other programs

This project and other programs that run the same model do the same work on one machine, in turns. `make
bench-peers` writes this page with the figures of your machine.

- All use one checkpoint: random weights, bfloat16 on disk, written once in the layout that each program reads.
  Random weights cost as much as real ones, but the texts are meaningless.
- All use the same clips: generated noise with the rhythm of speech, 16 kHz WAV.
- Every answer must have exactly the same number of tokens for each clip. The stop token is not allowed.
- Every program has its own process and the same number of threads. They take turns, one request at a time, round
  by round, after one warm-up request each, in one run or in several; the last table says when. Trials during
  which other processes used more than half a core do not count; the tables show what they used in the others, at
  most.
- Times run from the call to the first token, and to the complete text, and include reading the file. The tables
  show the median, with the lowest and highest trial in brackets. A ratio compares a median with that of the
  first row.
"""


DISTURBED = 0.5  # cores that other processes use; a trial with more does not count
OTHERS = "other processes, cores"
DIGITS = {"operations": 0, "computing": 0, "evaluations": 2}


def write_page(run: dict[str, Any]) -> str:
    """Return the page.

    Args:
        run: what `measure.run` returned, as "results", and the settings of the run.
    """
    run = run | {"results": {name: undisturbed(result) for name, result in run["results"].items()}}
    parts = [INTRODUCTION, *_about(run), *_clip(run), *_batch(run), *_work(run), *_engines(run), *_limits(run)]
    return "\n".join(parts) + "\n"


def _about(run: dict[str, Any]) -> list[str]:
    machine = run["machine"]
    memory_gb = machine["memory_bytes"] / 1e9
    cpu = f"CPU; MLX with {machine['blas'] or 'no BLAS'}"
    return [
        "## The run",
        "",
        *_table(
            ["", ""],
            [
                ["commands", "; ".join(f"`{command}`" for command in run["commands"])],
                ["machine", f"{machine['processor']}, {machine['cores']} cores, {memory_gb:.0f} GB of memory"],
                ["system", machine["system"]],
                ["threads", f"{run['threads']} for every engine"],
                ["device", f"{machine['gpu']} for MLX, the CPU for PyTorch" if machine["gpu"] else cpu],
                ["model", run["model"]],
                ["clips", f"{run['clips']} of {run['duration_s']:g} s"],
            ],
        ),
    ]  # fmt: skip


def _clip(run: dict[str, Any]) -> list[str]:
    results = {name: result for name, result in run["results"].items() if result["clip"]}
    tokens = run["tokens"]
    if not results:
        return []
    base = next(iter(results.values()))["clip"]
    rows = []
    for name, result in results.items():
        trials = result["clip"]
        row = [name]
        for stage in ("first_token_s", "total_s"):
            row += [seconds(trials, stage), times(trials, base, stage)]
        rows.append([*row, str(len(trials)), elsewhere(trials), _same_text(name, result, results)])
    header = ["", "first token, s", "ratio", f"{tokens} tokens, s", "ratio", "trials", OTHERS, "same text as"]
    return [f"## One clip of {run['duration_s']:g} s, {tokens} tokens", "", *_table(header, rows)]


def _batch(run: dict[str, Any]) -> list[str]:
    results, clips = run["results"], run["clips"]
    batched = {name: result for name, result in results.items() if result["batch"]}
    if not batched:
        return []
    base = next(iter(batched.values()))["batch"]
    rows = []
    for name, result in batched.items():
        total_s, alone_s = median(result["batch"]), median(result["clip"])
        row = [name, seconds(result["batch"], "total_s"), f"{total_s / clips:.2f}"]
        row += [
            times(result["batch"], base, "total_s"),
            f"{alone_s * clips / total_s:.1f}" if result["clip"] else "",
        ]
        rows.append([*row, str(len(result["batch"])), elsewhere(result["batch"])])
    header = ["", "all, s", "a clip, s", "ratio", "throughput, compared with one by one", "trials", OTHERS]
    return [f"## {clips} clips in one batch, {run['tokens']} tokens each", "", *_table(header, rows)]


def _work(run: dict[str, Any]) -> list[str]:
    counted = {name: result["work"] for name, result in run["results"].items() if result["work"]}
    if not counted:
        return []
    kinds = ("operations", "computing", "evaluations")
    rows = []
    for name, work in counted.items():
        whole = [f"{work['whole'][kind] / run['tokens']:.{DIGITS[kind]}f}" for kind in kinds]
        rows.append([name, *(f"{work['further'][kind]:g}" for kind in kinds), *whole])
    return [
        "## MLX operations per token",
        "",
        "Counts, not times, for one clip. Operations: nodes of the graphs that MLX evaluates. Computing: those",
        "that compute, rather than only view memory differently. Evaluations: how often Python starts an",
        "evaluation. The left columns count one additional token, the right ones the whole clip, from samples to",
        f"text, divided by its {run['tokens']} tokens. Counts depend on the device: on a CPU, MLX uses several",
        "operations where a GPU has one kernel.",
        "",
        *_table(
            ["", *(f"one more token: {kind}" for kind in kinds), *(f"whole clip: {kind}" for kind in kinds)], rows
        ),
    ]


def _engines(run: dict[str, Any]) -> list[str]:
    rows = []
    for name, asked in run["asked"].items():
        versions = ", ".join(f"{package} {version}" for package, version in run["versions"][name].items())
        first, *_, last = (moment.split("+")[0] for moment in sorted(run["measured"][name] * 2))
        rows.append([name, versions, asked, first if first == last else f"{first} to {last}"])
    return ["## How each program was run", "", *_table(["", "versions", "", "measured, UTC"], rows)]


def _limits(run: dict[str, Any]) -> list[str]:
    device = (
        "the GPU for the programs that use MLX, and the CPU for those that use PyTorch"
        if run["machine"]["gpu"]
        else "the CPU only, because no GPU was available"
    )
    return ["## What was not measured", "", f"This run used {device}. It does not measure accuracy."]


def undisturbed(result: dict[str, Any]) -> dict[str, Any]:
    """Return a program's results without trials during which other processes were busy."""
    kept = {
        kind: [answer for answer in result[kind] if (answer["elsewhere"] or 0) <= DISTURBED]
        for kind in ("clip", "batch")
    }
    return result | kept


def spread(answers: list[dict[str, Any]], stage: str) -> Spread | None:
    """Return the spread of a time over the trials; None if the program does not report it."""
    found = [answer[stage] for answer in answers]
    return None if None in found else Spread.of(found)


def elsewhere(answers: list[dict[str, Any]]) -> str:
    """Return the most cores that other processes used during a trial."""
    known = [answer["elsewhere"] for answer in answers if answer["elsewhere"] is not None]
    return f"{max(known):.2f}" if known else "unknown"


def median(answers: list[dict[str, Any]]) -> float:
    """Return the median of the whole time; not a number without trials."""
    return Spread.of([answer["total_s"] for answer in answers]).median if answers else math.nan


def seconds(answers: list[dict[str, Any]], stage: str) -> str:
    """Return the median, and the range if there are several trials."""
    found = spread(answers, stage)
    if found is None:
        return "not reported"
    shown = f"{found.median:.2f}"
    return shown if len(answers) == 1 else f"{shown} ({found.low:.2f}-{found.high:.2f})"


def times(answers: list[dict[str, Any]], base: list[dict[str, Any]], stage: str) -> str:
    """Return the ratio of the medians."""
    found, compared = spread(answers, stage), spread(base, stage)
    return f"{found.median / compared.median:.2f}" if found and compared else ""


def _same_text(name: str, result: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the names of the other programs that wrote the same text."""
    own = result["clip"][0]["texts"]
    same = [other for other, found in results.items() if other != name and found["clip"][0]["texts"] == own]
    return "; ".join(same) or "none"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]
