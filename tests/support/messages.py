"""List every error of the package. The list is read from the source, so that it is complete.

`make messages` writes `docs/messages.md`. A test compares that page with the source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funasr_cli import errors
from funasr_cli.errors import ExitCode, FunASRError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "funasr_cli"
PAGE = ROOT / "docs/messages.md"
Texts = dict[str, list[ast.expr]]  # the expressions that a name may stand for
TEXTS = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.IfExp)
HEAD = """# Error messages

An error is printed as `error[code]: message`. The next line suggests what to do. Codes are stable, so scripts and
searches can rely on them; the wording may change.

Text in braces stands for a value, and `A / B` means A or B. Brackets contain alternatives for a part of a message,
as in `[A / B]`, or a part that may be missing, as in `[A]`. `make messages` writes this page.
"""


@dataclass(frozen=True)
class Raised:
    """A place in the source that creates an error.

    Attributes:
        file: path relative to the repository.
        line: line number.
        exit_code: exit code of the error's type.
        codes: its possible codes; an empty one if it has none or if the source does not spell it out.
        message: template of the message.
        hint: template of the hint; may be empty.
    """

    file: str
    line: int
    exit_code: ExitCode
    codes: tuple[str, ...]
    message: str
    hint: str


def find_raised() -> list[Raised]:
    """Return every place that creates an error, sorted by file."""
    return [raised for path in sorted(PACKAGE.rglob("*.py")) for raised in raised_in(path)]


def raised_in(path: Path) -> Iterator[Raised]:
    """Yield the places in one file."""
    source = path.read_text(encoding="utf-8")
    if errors.__name__ not in source:
        return
    file = path.relative_to(ROOT)
    module = importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
    constants = {name: [ast.Constant(value)] for name, value in vars(module).items() if isinstance(value, str)}
    for node, texts in calls(ast.parse(source), constants):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        type = getattr(module, name, None) or getattr(errors, name, None)
        if inspect.isclass(type) and issubclass(type, FunASRError):
            given = dict(zip(("message", "hint"), node.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            message, hint = (spell(given[part], texts) if part in given else "" for part in ("message", "hint"))
            codes = tuple(literals(given.get("code")))
            yield Raised(file.as_posix(), node.lineno, type.exit_code, codes, message, hint)


def calls(node: ast.AST, texts: Texts) -> Iterator[tuple[ast.Call, Texts]]:
    """Yield every call below a node, with the texts that the local names stand for."""
    if isinstance(node, ast.FunctionDef):
        own: dict[str, list[ast.expr]] = defaultdict(list)
        for part in ast.walk(node):
            target = part.targets[0] if isinstance(part, ast.Assign) else None
            if isinstance(part, ast.Assign) and isinstance(target, ast.Name) and isinstance(part.value, TEXTS):
                own[target.id].append(part.value)
        texts = texts | own
    if isinstance(node, ast.Call):
        yield node, texts
    for child in ast.iter_child_nodes(node):
        yield from calls(child, texts)


def literals(node: ast.expr | None) -> Iterator[str]:
    """Yield the texts that an expression may evaluate to; an empty one for anything that is not a literal."""
    if isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)
    elif not (isinstance(node, ast.Attribute) and node.attr == "code"):  # that of the replaced error
        yield node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def spell(node: ast.expr, texts: Texts) -> str:
    """Return a message as a template, with inserted values in braces."""
    return " / ".join(filter(None, _alternatives(node, texts)))


def _part(node: ast.expr, texts: Texts) -> str:
    """Return a part of a message. Alternatives are in brackets, as is a text that may be missing."""
    found = _alternatives(node.value if isinstance(node, ast.FormattedValue) else node, texts)
    return found[0] if len(found) == 1 else f"[{' / '.join(filter(None, found))}]"


def _alternatives(node: ast.expr, texts: Texts) -> list[str]:
    """Return the templates that an expression may stand for; an empty one if it may be empty or None."""
    if isinstance(node, ast.Constant):
        return ["" if node.value is None else str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(_part(part, texts) for part in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [_part(node.left, texts) + _part(node.right, texts)]
    choices = [node.body, node.orelse] if isinstance(node, ast.IfExp) else []
    if isinstance(node, ast.Name):
        choices = [text for text in texts.get(node.id, ()) if getattr(text, "lineno", 0) <= node.lineno]
        texts = {name: choice for name, choice in texts.items() if name != node.id}
    found = dict.fromkeys(text for choice in choices for text in _alternatives(choice, texts))
    return list(found) or ["{" + ast.unparse(node) + "}"]


def page(raised: list[Raised]) -> str:
    """Return the whole page: errors by code, then those without a code."""
    by_code: dict[str, list[Raised]] = defaultdict(list)
    for one in raised:
        for code in one.codes:
            by_code[code].append(one)
    lines = [HEAD]
    for code in sorted(by_code, key=lambda code: (not code, code)):
        exits = " or ".join(str(int(exit_code)) for exit_code in sorted({one.exit_code for one in by_code[code]}))
        head = [f"## `{code}`", "", f"Exit code {exits}."] if code else ["## Without a code"]
        lines += [*head, "", *sorted({entry(one) for one in by_code[code]}), ""]
    return "\n".join(lines)


def entry(one: Raised) -> str:
    """Return a message and, on the next line, its hint, without backticks, which would end the code span."""
    message, hint = (" ".join(text.replace("`", "'").split()) for text in (one.message, one.hint))
    return f"- `{message}`" + (f"  \n  `{hint}`" if hint else "")


if __name__ == "__main__":
    every = find_raised()
    PAGE.write_text(page(every), encoding="utf-8")
    codes = {code for one in every for code in one.codes if code}
    print(f"{PAGE.relative_to(ROOT)}: {len(every)} errors, {len(codes)} codes; without a literal one:")
    print(*sorted({one.file for one in every if "" in one.codes}) or ["none"], sep="\n")
