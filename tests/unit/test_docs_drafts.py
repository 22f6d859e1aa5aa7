"""The page on performance says what the code does about drafts."""

import re
from pathlib import Path

import pytest

from funasr_cli.decoding.batch import CPU_FIXED_POSITIONS, GPU_FIXED_POSITIONS, tried_at_once
from funasr_cli.decoding.draft import EVIDENCE, FIRST_HOPE, MOST_TOKENS

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
    fixed = (CPU_FIXED_POSITIONS, GPU_FIXED_POSITIONS)
    tried = [
        tried_at_once([MOST_TOKENS] * rows, [hope] * rows, positions)
        for positions in fixed
        for hope in (0.9, 0.6, 0.2)
    ]
    assert tried == shown


def test_its_constants() -> None:
    assert len(ROWS) == 3
    assert f"{CPU_FIXED_POSITIONS} on a CPU, {GPU_FIXED_POSITIONS} on a GPU" in SECTION
    assert f"beginning with {FIRST_HOPE:g} as if {EVIDENCE} tokens had been tried" in SECTION
