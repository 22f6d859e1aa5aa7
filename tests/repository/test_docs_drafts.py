"""The page on performance says what the code does about drafts."""

import re
from pathlib import Path

import pytest

from funasr_cli.decoding.batch import (
    CPU_FIXED_POSITIONS,
    CPU_SLOW_FIXED_POSITIONS,
    GPU_FIXED_POSITIONS,
    RunCost,
    tried_at_once,
)
from funasr_cli.decoding.draft import CASES, FIRST, FURTHER, MOST_TOKENS
from funasr_cli.models.layers import FULL_ROWS

PAGE = (Path(__file__).parents[2] / "docs/performance.md").read_text(encoding="utf-8")
SECTION = " ".join(PAGE.split("## Drafted decoding")[1].split("\n## ")[0].split())
ROWS = [
    list(map(int, row))
    for row in re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE
    )
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} rows")
def test_the_table_of_what_is_tried_at_once(row: list[int]) -> None:
    rows, *shown = row
    costs = RunCost(CPU_FIXED_POSITIONS, FULL_ROWS), RunCost(GPU_FIXED_POSITIONS)
    tried = [
        tried_at_once([MOST_TOKENS] * rows, [(first, FURTHER)] * rows, cost)
        for cost in costs
        for first in (0.8, 0.4, 0.1)
    ]
    assert tried == shown


def test_its_constants() -> None:
    assert len(ROWS) == 3
    assert f"{CPU_FIXED_POSITIONS} on a CPU in float32" in SECTION
    assert f"{CPU_SLOW_FIXED_POSITIONS} on a CPU in other types" in SECTION
    assert f"{GPU_FIXED_POSITIONS} on a GPU" in SECTION
    assert f"({FIRST:g} and {FURTHER:g}, worth {CASES} cases)" in SECTION
