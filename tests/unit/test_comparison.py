"""docs/comparison.md: every option listed for another program is in exactly one table row, and no other is."""

import re
from collections import Counter
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")
TABLES, LISTS = PAGE.split("\n## The lists\n")
HEAD = "| theirs | what it does | ours |"
VERDICTS = ("has", "better", "other", "partly", "theirs", "later", "no")
SHORT_OF_THEIRS = re.compile(r"\*\*(?:partly|theirs|later)\*\*")  # also after another verdict
REASON = re.compile(r"\*Why:\* (.+)")
REASON_OF_OURS = re.compile(r"\*\*(?:no|other)\*\*[^:]*: (.+)")
GROUP = re.compile(r"(?P<commands>\w+(?:, \w+)*): (?P<names>`[^`]+`(?:, `[^`]+`)*)")


def rows() -> list[list[str]]:
    """Return the cells of every row of the comparison tables."""
    lines = TABLES.splitlines()
    heads = [number for number, line in enumerate(lines) if line == HEAD]
    found = []
    for head in heads:
        for line in lines[head + 2 :]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def names_in(cell: str) -> list[tuple[str, str]]:
    """Return command and name of each option in a cell such as "whisper, ct2: `--task`<br>hydra: `itn`"."""
    groups = [GROUP.fullmatch(part) for part in cell.split("<br>")]
    assert all(groups), cell
    return [
        (command, name)
        for group in groups
        if group
        for command in group["commands"].split(", ")
        for name in re.findall(r"`([^`]+)`", group["names"])
    ]


def test_every_listed_name_is_in_one_row() -> None:
    """There are no others, and the stated number of options per command is right."""
    entries = re.findall(r"^\*\*(\w+)\*\*: (\d+) names.*?\n\n(`.*?`)\n\n", LISTS, re.MULTILINE | re.DOTALL)
    assert len(entries) == len(re.findall(r"^\*\*\w+\*\*: ", LISTS, re.MULTILINE)) > 0
    listed = Counter((command, name) for command, _, names in entries for name in re.findall(r"`([^`]+)`", names))
    compared = Counter(pair for row in rows() for pair in names_in(row[0]))
    assert (listed - compared, compared - listed) == (Counter(), Counter())
    assert set(listed.values()) == {1}
    counts = Counter(command for command, _ in listed)
    assert counts == {command: int(count) for command, count, _ in entries}


@pytest.mark.parametrize("row", rows(), ids=lambda row: names_in(row[0])[0][1])
def test_every_row_has_a_verdict_and_a_reason(row: list[str]) -> None:
    """The reason has four words or more."""
    _, what, verdict = row
    first = re.match(r"\*\*(\w+)\*\*", verdict)
    assert what
    assert first
    assert first[1] in VERDICTS
    wanted = [REASON] if SHORT_OF_THEIRS.search(verdict) else []
    wanted += [REASON_OF_OURS] if first[1] in ("no", "other") else []
    for reason in (pattern.search(verdict) for pattern in wanted):
        assert reason
        assert len(reason[1].split()) >= 4
