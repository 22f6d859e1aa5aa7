"""Tables of measurements: as Markdown, and on narrow terminals."""

from funasr_cli.cli.measurements import Grid

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
    """Names take five columns, one of them in between; the numbers eight and six."""
    assert [part.headings for part in GRID.fitted(19)] == [["case", "seconds", "tok/s"]]
    narrow = list(GRID.fitted(18))
    assert [part.headings for part in narrow] == [["case", "seconds"], ["case", "tok/s"]]
    assert [part.rows for part in narrow] == [
        [["a|b", "1.00"], ["中文", "2.00"]],
        [["a|b", "20.0"], ["中文", "10.0"]],
    ]
    assert len(list(GRID.fitted(1))) == 2, "one number at least"


def test_long_names_do_not_take_all() -> None:
    grid = Grid(["case", "seconds"], [["x" * 300, "1.00"]])
    assert len(list(grid.fitted(60))) == 1
