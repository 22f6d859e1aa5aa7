"""`tools/plain_english.py`: the phrases and docstrings that it reports, and those that it accepts."""

import re
from pathlib import Path

import pytest

from tools import plain_english
from tools.plain_english import fragments, main, phrases, problems

FIRST, SECOND = "for", "good"  # apart, because the check also reads this file
BAD = f"{FIRST} {SECOND}"  # one of its phrases


@pytest.mark.parametrize(
    "text",
    [
        f"It is closed {BAD}.",
        f"It is closed {BAD.upper()}.",
        f"# It is closed {FIRST}\n# {SECOND}.",
        f"    # It is closed {FIRST}\n    # {SECOND}.",
        f'"""It is closed {FIRST}\n    {SECOND}."""',
        f'error("It is closed {FIRST} "\n      "{SECOND}.")',
        f'error("It is closed {FIRST}"\n      " {SECOND}.")',
        f'error(f"{{name}} is closed {FIRST} "\n      f"{SECOND}.")',
        f'error(f"{{name}} is closed {BAD}.")',
        f"error('It is closed {FIRST} '\n      rf'{SECOND}.')",
        f"> It is closed {FIRST}\n> {SECOND}.",
    ],
    ids=[
        "one line", "capitals", "comment", "indented comment", "docstring", "two literals",
        "space in the second literal", "two f-strings", "f-string", "single quotes", "quotation",
    ],
)  # fmt: skip
def test_a_phrase_is_found_across_lines(text: str) -> None:
    [(line, problem)] = phrases(f"x = 1\n{text}\n")
    assert line == 2
    assert {FIRST, SECOND} <= set(re.findall(r"\w+", problem.lower()))
    assert "permanently" in problem


@pytest.mark.parametrize(
    "text",
    [
        f"It is {FIRST} {SECOND}s.",
        f"un{BAD}",
        f"{FIRST}_{SECOND}",
        f"it-{FIRST} {SECOND}",
        f"{FIRST}\n\nx = 1\n{SECOND}",
        "",
    ],
)
def test_other_words_are_accepted(text: str) -> None:
    assert list(phrases(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "There are {so} many rows.", "It works {whatever} the size.", "Nothing {be}sides this.",
        "It has a type of {its} own.", "What the branch {hears}.", "It {lies} in a folder.",
        "The limit {stands} in the file.", "Take speech as far as {there} is some.",
    ],
)  # fmt: skip
def test_phrases_that_were_once_missed(text: str) -> None:
    bad = text.replace("{", "").replace("}", "")  # apart in this file, as above
    assert len(list(phrases(bad))) == 1


def test_stand_in_is_accepted() -> None:
    assert list(phrases("A function that stands in for the hub.")) == []


def test_each_phrase_has_its_own_advice() -> None:
    """A line with two phrases is reported twice."""
    found = list(phrases(f"It is closed {BAD}, {'but'} for one.\nNo{'body'} knows."))
    assert [line for line, _ in found] == [1, 1, 2]
    assert ["permanently" in text for _, text in found] == [True, False, False]
    assert "except" in found[1][1]
    assert "name who" in found[2][1]


def function(docstring: str, decorator: str = "") -> str:
    return f'{decorator}\ndef area(self):\n    """{docstring}"""\n'


@pytest.mark.parametrize(
    "docstring",
    ["The area of the shape.", "Whether it fits.", "(samples,) -> (frames,).", "`x` squared.", "read a file.",
     "Reads a file.", "\n    All rows.\n    "],
)  # fmt: skip
def test_a_fragment_is_found(docstring: str) -> None:
    [(line, problem)] = fragments(function(docstring))
    assert line == 2
    assert docstring.strip().split()[0] in problem


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the area.",
        "Read a file: all of it.",
        "Stop.",
        "Pass it on.",
        "Re-read the file.",
        "\n    Return the area.\n    ",
    ],
)
def test_an_instruction_is_accepted(docstring: str) -> None:
    assert list(fragments(function(docstring))) == []


@pytest.mark.parametrize("decorator", ["@property", "@functools.cached_property", "@area.setter", "@overload"])
def test_a_property_is_exempt(decorator: str) -> None:
    assert list(fragments(function("The area of the shape.", decorator))) == []
    for other in ("@cache", "@property_of_all", "@overloaded"):
        assert list(fragments(function("The area of the shape.", other))) != []


def test_a_function_without_a_docstring_and_a_class_are_accepted() -> None:
    assert list(fragments('class Shape:\n    """A shape."""\n\n    def area(self):\n        return 1\n')) == []


def test_methods_and_nested_functions_are_checked() -> None:
    source = (
        'class Shape:\n    def area(self):\n        """The area."""\n'
        '        def side():\n            """A side."""\n'
    )
    assert sorted(line for line, _ in fragments(source)) == [2, 4]


def test_docstrings_of_tests_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They describe what holds; phrases are reported there as everywhere."""
    monkeypatch.setattr(plain_english, "ROOT", tmp_path)
    source = function(f"The area, {BAD}.")
    found = {}
    for name in ("tests/test_shape.py", "tools/shape.py", "tools/shape.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
        found[name] = len(list(problems(path)))
    assert found == {"tests/test_shape.py": 1, "tools/shape.py": 2, "tools/shape.md": 1}


class Listing:
    """The output of ``git ls-files``."""

    def __init__(self, *names: str) -> None:
        self.stdout = "\n".join(names)


def test_the_exit_code_and_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.md").write_text(f"Fine.\nClosed {BAD}.\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("Fine.\n", encoding="utf-8")
    for folder in ("funasr_cli/demo", "funasr_cli/demo/clips"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "c.md").write_text(f"Closed {BAD}.\n", encoding="utf-8")
    (tmp_path / "LICENSE").write_text(f"Closed {BAD}.\n", encoding="utf-8")
    (tmp_path / "a.wav").write_bytes(b"\xff")
    monkeypatch.setattr(plain_english, "ROOT", tmp_path)
    listed = Listing("a.md", "b.md", "LICENSE", "a.wav", "deleted.md")
    monkeypatch.setattr(plain_english.subprocess, "run", lambda *_, **__: listed)
    assert main() == 1
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("a.md:2: ")
    listed.stdout = "funasr_cli/demo/clips/c.md\nfunasr_cli/demo/c.md"
    assert main() == 1
    assert capsys.readouterr().out.startswith("funasr_cli/demo/c.md:1: ")
    listed.stdout = "b.md"
    assert main() == 0
    assert capsys.readouterr().out == ""
