"""Error rates follow the documentation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_cli.benchmarks.scoring import error_rate, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is it 5 o'clock?", ["is", "it", "5", "o'clock"]), ("我要15块钱。", ["我", "要", "15", "块", "钱"]),
        ("ＡＢＣ　ｄ", ["abc", "d"]), ("OK我 们,好", ["ok", "我", "们", "好"]), ("", []), ("。！?", []),
    ],
)  # fmt: skip
def test_units(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def brute_force_distance(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return brute_force_distance(a[1:], b[1:])
    options = ((a[1:], b), (a, b[1:]), (a[1:], b[1:]))
    return 1 + min(brute_force_distance(*pair) for pair in options)


@given(st.lists(st.sampled_from("我你x"), max_size=6), st.lists(st.sampled_from("我你x"), max_size=6))
def test_edits_against_brute_force(wanted: list[str], got: list[str]) -> None:
    rate = error_rate([(" ".join(wanted), " ".join(got))])
    assert (rate.edits, rate.total) == (brute_force_distance(wanted, got), len(wanted))


def test_rates_are_of_all_units_together() -> None:
    assert error_rate([("a b c d", "a b c d"), ("a", "b")]).percent == 20
    assert error_rate([]).percent == 0


def test_kinds_of_errors() -> None:
    rate = error_rate([("a b c", "a x"), ("我 你", "我 你 他")])
    assert (rate.substitutions, rate.deletions, rate.insertions) == (1, 1, 1)
    assert (rate.edits, rate.total, rate.percent) == (3, 5, 60)
