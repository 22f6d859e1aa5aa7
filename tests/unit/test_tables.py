"""Tables of measurements: as Markdown, and on narrow terminals."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from funasr_cli.cli.tables import Grid, plain

GRID = Grid(["case", "seconds", "tok/s"], [["a|b", "1.00", "20.0"], ["中文", "2.00", "10.0"]], ["A note."])


def test_markdown() -> None:
    assert GRID.markdown() == (
        "| case | seconds | tok/s |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b | 1.00 | 20.0 |\n"
        "| 中文 | 2.00 | 10.0 |\n"
        "\n"
        "A note.\n"
    )


def test_columns_that_fit() -> None:
    """Names take four columns, the numbers eight and six; one each at the edges and in between."""
    assert [part.headings for part in GRID.fitted(22)] == [["case", "seconds", "tok/s"]]
    narrow = list(GRID.fitted(21))
    assert [part.headings for part in narrow] == [["case", "seconds"], ["case", "tok/s"]]
    assert [part.rows for part in narrow] == [
        [["a|b", "1.00"], ["中文", "2.00"]],
        [["a|b", "20.0"], ["中文", "10.0"]],
    ]
    assert len(list(GRID.fitted(1))) == 2, "one number at least"


def test_long_names_do_not_take_all() -> None:
    grid = Grid(["case", "seconds"], [["x" * 300, "1.00"]])
    assert len(list(grid.fitted(60))) == 1


@given(st.lists(st.text("12345.", max_size=12), min_size=1, max_size=6), st.integers(10, 90))
def test_names_stay_in_one_line(numbers: list[str], width: int) -> None:
    """As Rich draws the tables; where not even one number has room beside it, the name gives way."""
    grid = Grid(["case", *("x" * index for index in range(1, len(numbers) + 1))], [["short.wav", *numbers]])
    for part in grid.fitted(width):
        table = plain(*part.headings)
        table.add_row(*part.rows[0])
        least = len(" short.wav ") + max(len(part.headings[1]) + 1, len(part.rows[0][1])) + 1  # with one number
        assert Console(width=200).measure(table).maximum <= max(width, least)
