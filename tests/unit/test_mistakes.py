"""Mistakes on the command line: Click's and Pydantic's messages in our own words."""

from types import SimpleNamespace

import pytest

from funasr_cli.cli.mistakes import in_our_words


class BadParameter(Exception):
    """A value that Click refuses, for the option --trials."""

    param = SimpleNamespace(param_type_name="option", opts=["--trials"], name="trials")

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ValidationError(Exception):
    """Pydantic's error, which is the cause of Click's."""

    def errors(self) -> list[dict[str, object]]:
        return [{"input": "9"}]


@pytest.mark.parametrize(
    ("message", "problem", "hint"),
    [
        ("9 is not in the range x>=10.", "too small", "use 10 or more"),
        ("9 is not in the range x<=8.", "too large", "use 8 or less"),
        ("9 is not in the range 1<=x<=8.", "out of range", "use 1 to 8"),
        ("Input should be greater than or equal to 10", "too small", "use 10 or more"),
        ("Input should be less than or equal to 8", "too large", "use 8 or less"),
    ],
)
def test_numbers_out_of_range(message: str, problem: str, hint: str) -> None:
    error = BadParameter(message)
    error.__cause__ = ValidationError() if message.startswith("Input") else None
    assert in_our_words(error) == (f"--trials: 9 is {problem}", hint)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Got unexpected extra argument (a)", "unexpected argument: a"),
        ("Got unexpected extra argument(s) (a b)", "unexpected arguments: a b"),
        ("Got unexpected extra arguments (a b)", "unexpected arguments: a b"),
    ],
)
def test_extra_arguments(message: str, words: str) -> None:
    assert in_our_words(SimpleNamespace(message=message)) == (words, "")
