"""Keep the results of several runs together, so that single programs can be measured again."""

from typing import Any

from funasr_cli.errors import UsageError
from tools.peers.engines import ENGINES

# What all runs must have in common.
SETTINGS = ("machine", "threads", "model", "tokens", "clips", "duration_s")


def merge(saved: dict[str, Any] | None, new: dict[str, Any], append: bool) -> dict[str, Any]:
    """Return the saved runs with a new one, whose programs replace what was saved of them.

    Args:
        saved: what this function returned before.
        new: settings of a run, and of each program what `measure.run` returned, as "results", how it was run, as
            "asked", its "versions", and in "measured" the times of its runs.
        append: add the new trials to the saved ones instead of replacing them.

    Raises:
        UsageError: the saved runs have other settings.
    """
    if saved is None:
        return new
    if odd := [name for name in SETTINGS if saved[name] != new[name]]:
        hint = "repeat the options of the saved run, or omit --engines and --append to measure everything again"
        raise UsageError(f"the saved run differs in {', '.join(odd)}", hint, code="options-conflict")
    merged = saved | {"commands": list(dict.fromkeys([*saved["commands"], *new["commands"]]))}
    for part in ("asked", "versions", "measured", "results"):
        merged[part] = saved[part] | new[part]
    for name in saved["results"].keys() & new["results"].keys() if append else ():
        before, after = saved["results"][name], new["results"][name]
        merged["results"][name] = {
            "clip": before["clip"] + after["clip"],
            "batch": before["batch"] + after["batch"],
            "work": after["work"] or before["work"],
        }
        merged["measured"][name] = saved["measured"][name] + new["measured"][name]
    order = [engine.name for engine in ENGINES if engine.name in merged["results"]]
    merged["results"] = {name: merged["results"][name] for name in order}
    merged["asked"] = {name: merged["asked"][name] for name in order}
    return merged
