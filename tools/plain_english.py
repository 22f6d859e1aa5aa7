"""Check the wording of docs, messages, comments and docstrings; part of ``make lint``.

Two checks. The first looks for phrases that read badly, in every text file under version control. The second reads
the first word of each function's docstring in the package and the tools: it must be a verb in the imperative.
Properties are exempt, since they read as nouns.

    python -m tools.plain_english
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".toml", ".yml", ".txt", ".json", ""}  # "" is the Makefile
# This file names the phrases; the others hold sentences to be spoken, or third parties' words.
EXEMPT = (
    "tools/plain_english.py", "tools/demo/phrases_", "tests/data/", "funasr_cli/demo/clips/",
    "funasr_cli/demo/model/", "LICENSE", ".ci/",
)  # fmt: skip
READ_AS_NOUNS = ("property", "cached_property", "setter", "getter", "deleter", "overload")  # decorators

# A phrase, as a regular expression, and what to write instead.
PHRASES = {
    r"nobody|somebody": "name who or what it is",
    r"so many": "name the count",
    r"as far as there (?:is|are)": "if there is",
    r"whatever the": "regardless of",
    r"besides": "other than, in addition to",
    r"of its own(?![\s#>]+\w)": "its own, separate",
    r"(?:model|branch|decoder|encoder|aligner|program)s? hears?|never heard": "name what is computed or missing",
    r"stands? (?:on|at|there)|stands? in(?! for)|lies? (?:in|on|at)": "is in, is on, is at",
    r"to be had": "available",
    r"sees? to it|there to see to": "make sure, check",
    r"at hand": "available",
    r"(?:is|are|be) (?:said|told)": "is reported, is passed, is printed",
    r"what is told|so well": "name it",
    r"but for": "except",
    r"what there is": "name it",
    r"in circles": "loop",
    r"finds? no end|without an end": "run away, never end",
    r"gravest": "most serious",
    r"for good": "permanently",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"go(?:es)? by": "use, depend on",
    r"behind": "after",
    r"beside": "next to, compared with",
    r"has been typed|have been typed|is typed": "is given on the command line",
    r"as it lies|as they lie|lies there|lie there": "as it is",
    r"must not decide": "does not affect",
    r"is to be (?:had|known|found|told|said)": "can be, must be",
    r"goes (?:on|off)": "continues, stops",
    r"anew": "again",
    r"what stands|what becomes of": "name it",
}
# Words of a phrase may stand on two lines of a comment or a quotation, or in two literals, one below the other.
GAP = r"""(?:[\s#>]|[\"']\s+[rf]*[\"'])+"""
PATTERN = re.compile(
    "|".join(rf"(?P<p{n}>(?<![-\w])(?:{phrase})(?![-\w]))" for n, phrase in enumerate(PHRASES)).replace(" ", GAP),
    re.IGNORECASE,
)
ADVICE = list(PHRASES.values())

# Words that begin a fragment, not an instruction, as in "The folder of this name".
NOT_VERBS = set(
    """a all an another any as at because both by each either every everything first folder for from how i if in is
    it its many more most neither no none not nothing of on once one only other others so some still text that the
    their there these they this those to two up what when where whether which who whose why with within
    without""".split()
)


def phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each phrase that reads badly, and what to write instead."""
    for found in PATTERN.finditer(text):
        name = next(name for name, value in found.groupdict().items() if value)
        words = " ".join(re.sub(r"""[#>"']""", " ", found[0]).split())
        yield text.count("\n", 0, found.start()) + 1, f"{words!r}: write {ADVICE[int(name[1:])]!r}"


def fragments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each function whose docstring does not begin with a verb, and its first line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if any(ast.unparse(each).rpartition(".")[2] in READ_AS_NOUNS for each in node.decorator_list):
            continue
        line = (ast.get_docstring(node) or "Return.").splitlines()[0]
        word = re.split(r"[\s,;:.]", line, maxsplit=1)[0]
        is_word = word.replace("-", "").isalpha() and word[0].isupper()
        if not is_word or word.lower() in NOT_VERBS or re.search("[^s]s$", word):
            yield node.lineno, f"a docstring's first line is an instruction, not {line!r}"


def problems(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and problems of a file."""
    text = path.read_text(encoding="utf-8")
    yield from phrases(text)
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "tests":
        yield from fragments(text)


def main() -> int:
    """Print every problem as ``file:line: text``; return 1 if there is any."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = 0
    for name in listed.stdout.splitlines():
        if (ROOT / name).suffix in SUFFIXES and not name.startswith(EXEMPT) and (ROOT / name).is_file():
            for line, problem in problems(ROOT / name):
                print(f"{name}:{line}: {problem}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
