"""Every error has a stable code, and is listed in docs/messages.md."""

import re
from collections import defaultdict

from support.messages import PAGE, find_raised, page

from funasr_cli.errors import ExitCode

RAISED = find_raised()
MOST_CODES = 86  # a code stands for a kind of failure, not for a place in the source


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RAISED), "out of date: run `make messages`"


def test_every_error_has_a_literal_code() -> None:
    bare = [f"{one.file}:{one.line}" for one in RAISED if "" in one.codes]
    assert bare == []


def test_codes_are_few_and_plain() -> None:
    codes = {code for one in RAISED for code in one.codes if code}
    assert [code for code in sorted(codes) if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []
    assert len(codes) <= MOST_CODES


def test_a_code_has_one_exit_code() -> None:
    exits: dict[str, set[ExitCode]] = defaultdict(set)
    for one in RAISED:
        for code in filter(None, one.codes):
            exits[code].add(one.exit_code)
    assert {code: found for code, found in exits.items() if len(found) > 1} == {}


def test_every_kind_of_error_is_found() -> None:
    """Otherwise an empty page would pass as up to date."""
    assert len(RAISED) > 100
    assert {one.exit_code for one in RAISED} >= set(ExitCode) - {ExitCode.OK, ExitCode.PARTIAL, ExitCode.NO_SPEECH,
                                                                 ExitCode.INTERRUPTED}  # fmt: skip
