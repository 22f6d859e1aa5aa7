"""docs/reports/benchmarks.md, from what a run has written."""

from typing import Any

from funasr_cli.measure import Spread

INTRODUCTION = """\
# Benchmarks: side by side with peers

The same work for this project and for other programs that run the same model, in turns, in one run, on one
machine. This page is written by that run; `make bench-peers` makes it anew, with the figures of your machine.

- One checkpoint for all: random weights, bfloat16 on disk, written once in the layout that each of them reads.
  Random weights cost what real ones cost; the texts mean nothing.
- One set of clips: generated noise with the rhythm of speech, 16 kHz WAV.
- Exactly the same number of tokens for each clip, checked in every answer. The stop token is not allowed.
- Every engine stays loaded in a process of its own and computes with the same number of threads. One request at
  a time; they take turns, round by round, after a request to each that is not counted.
- Times are from the call to the first token, and to the text, reading the file included. Shown are medians, with
  the lowest and highest of the trials behind them.
"""


DIGITS = {"operations": 0, "computing": 0, "evaluations": 2}


def write_page(run: dict[str, Any]) -> str:
    """The page.

    Args:
        run: what `measure.run` returned as "results", and what has to be known about it.
    """
    parts = [INTRODUCTION, *_about(run), *_clip(run), *_batch(run), *_work(run), *_engines(run), *_limits(run)]
    return "\n".join(parts) + "\n"


def _about(run: dict[str, Any]) -> list[str]:
    machine = run["machine"]
    memory_gb = machine["memory_bytes"] / 1e9
    cpu = f"CPU; {next(iter(run['asked']))} with {machine['blas'] or 'no BLAS'}"
    return [
        "## The run",
        "",
        *_table(
            ["", ""],
            [
                ["date", run["started"]],
                ["command", f"`{run['command']}`, which `make bench-peers` runs"],
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
    results, tokens = run["results"], run["tokens"]
    ours, *_ = results
    base = results[ours]["clip"]
    rows = []
    for name, result in results.items():
        trials = result["clip"]
        row = [name]
        for stage in ("first_token_s", "total_s"):
            row += [seconds(trials, stage), times(trials, base, stage)]
        rows.append([*row, str(len(trials)), _same_text(name, result, results)])
    header = ["", "first token, s", "times ours", f"{tokens} tokens, s", "times ours", "trials", "same text as"]
    return [f"## One clip of {run['duration_s']:g} s, {tokens} tokens", "", *_table(header, rows)]


def _batch(run: dict[str, Any]) -> list[str]:
    results, clips = run["results"], run["clips"]
    batched = {name: result for name, result in results.items() if result["batch"]}
    if not batched:
        return []
    base = next(iter(batched.values()))["batch"]
    rows = []
    for name, result in batched.items():
        total_s = spread(result["batch"], "total_s").median
        alone_s = spread(result["clip"], "total_s").median
        row = [name, seconds(result["batch"], "total_s"), f"{total_s / clips:.2f}"]
        row += [times(result["batch"], base, "total_s"), f"{alone_s * clips / total_s:.1f}"]
        rows.append([*row, str(len(result["batch"]))])
    header = ["", "all, s", "a clip, s", "times ours", "throughput to one by one", "trials"]
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
        "## What MLX is given for a token",
        "",
        "Counts, not times, with one clip: nodes of the graphs that are evaluated; those of them that compute and",
        "not merely view memory in another way; how often Python has some of them evaluated. On the left for one",
        "more token, on the right for the whole clip, from its samples to its text, divided by its",
        f"{run['tokens']} tokens. Counts belong to this device: on a CPU, MLX spells out what a GPU has",
        "kernels for.",
        "",
        *_table(["", *(f"one more: {kind}" for kind in kinds), *(f"all: {kind}" for kind in kinds)], rows),
    ]


def _engines(run: dict[str, Any]) -> list[str]:
    rows = []
    for name, asked in run["asked"].items():
        versions = ", ".join(f"{package} {version}" for package, version in run["versions"][name].items())
        rows.append([name, versions, asked])
    return ["## What each was asked to do", "", *_table(["", "versions", ""], rows)]


def _limits(run: dict[str, Any]) -> list[str]:
    device = (
        "the GPU for MLX's engines, and the CPU for PyTorch's"
        if run["machine"]["gpu"]
        else "the CPU only: no GPU was at hand, so none was measured"
    )
    return ["## What this does not show", "", f"This run used {device}. Accuracy is no part of it."]


def spread(answers: list[dict[str, Any]], stage: str) -> Spread:
    """Over the trials."""
    return Spread.of([answer[stage] for answer in answers])


def seconds(answers: list[dict[str, Any]], stage: str) -> str:
    """Median, and the range where there is one."""
    found = spread(answers, stage)
    shown = f"{found.median:.2f}"
    return shown if len(answers) == 1 else f"{shown} ({found.low:.2f}-{found.high:.2f})"


def times(answers: list[dict[str, Any]], base: list[dict[str, Any]], stage: str) -> str:
    """Ratio of medians."""
    return f"{spread(answers, stage).median / spread(base, stage).median:.2f}"


def _same_text(name: str, result: dict[str, Any], results: dict[str, Any]) -> str:
    """Those of the others that wrote the same."""
    own = result["clip"][0]["texts"]
    same = [other for other, found in results.items() if other != name and found["clip"][0]["texts"] == own]
    return "; ".join(same) or "none"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]
