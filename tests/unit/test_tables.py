"""Tables of measurements: in Markdown, and on narrow terminals."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from funasr_cli.cli.tables import Grid, hours

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


def test_how_long_an_hour_of_audio_takes() -> None:
    """One sentence for each model, by its fastest case."""

    def case(model: str, batch_size: int, rtf: float) -> Any:
        return SimpleNamespace(
            case=f"{model}, batch of {batch_size}", model=model, rtf=SimpleNamespace(median=rtf)
        )

    slow, fast = hours([case("nano", 1, 2.0), case("nano", 16, 1.99), case("demo", 1, 0.011)])
    assert slow == "An hour of audio takes about 2.0 hours on this machine, at the speed of: nano, batch of 16."
    assert fast.startswith("An hour of audio takes about 1 minute on this machine")


def headings(grid: Grid, width: int) -> list[list[str]]:
    return [[str(column.header).strip() for column in table.columns] for table in grid.fitted(width)]


def test_columns_that_fit() -> None:
    """Names take four columns, the numbers eight and six, and each border one."""
    assert headings(GRID, 22) == [["case", "seconds", "tok/s"]]
    for width in (21, 1):  # at least one number
        assert headings(GRID, width) == [["case", "seconds"], ["case", "tok/s"]]
    for name in ("x" * 300, "[/red]"):  # not markup
        assert len(headings(Grid(["case", "seconds"], [[name, "1.00"]]), 60)) == 1


@given(st.lists(st.text("12345.", max_size=12), min_size=1, max_size=6), st.integers(10, 90))
def test_names_stay_in_one_line(numbers: list[str], width: int) -> None:
    """The tables are drawn by Rich. If not even one number fits next to it, the name is shortened."""
    grid = Grid(["case", *("x" * index for index in range(1, len(numbers) + 1))], [["short.wav", *numbers]])
    for table in grid.fitted(width):
        cells = [str(table.columns[1].header), *table.columns[1].cells]
        least = len(" short.wav ") + max(map(len, map(str, cells))) + 1  # with one number
        assert Console(width=200).measure(table).maximum <= max(width, least)
