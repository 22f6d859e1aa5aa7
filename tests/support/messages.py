"""Lists every error of the package: read from its source, so that none is missing.

`make messages` writes `docs/messages.md`; a test holds the page to the source.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from funasr_cli.errors import ExitCode

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "funasr_cli"
PAGE = ROOT / "docs/messages.md"
ROOT_TYPE = "FunASRError"
HEAD = """# Error messages

An error is shown as `error[code]: message`, with what to do about it in the next line. Codes are stable: scripts
and searches can rely on them; the words may change. What stands in braces is filled in; `A / B` is one or the
other. This page is written by `make messages`.
"""


@dataclass(frozen=True)
class Raised:
    """One place that makes an error.

    Attributes:
        place: file and line.
        code: None if there is none, or none that can be read off the source.
    """

    place: str
    type: str
    exit_code: ExitCode
    codes: tuple[str, ...]
    message: str
    hint: str

    @property
    def file(self) -> str:
        return self.place.partition(":")[0]


@dataclass
class Module:
    """A source file: its constants that are texts, and where its other names come from."""

    name: str
    path: Path
    tree: ast.Module
    texts: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_modules(package: Path = PACKAGE) -> dict[str, Module]:
    """Every module of the package, by its dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        module = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and is_text(node.value):
                module.texts[ast.unparse(node.targets[0])] = node.value
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imported |= {item.asname or item.name: (node.module, item.name) for item in node.names}
        modules[name] = module
    return modules


def is_text(node: ast.expr) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, str) or isinstance(node, ast.JoinedStr)


def find_types(modules: dict[str, Module]) -> dict[str, ExitCode]:
    """Each error type of ours with what the process ends with."""
    types = {ROOT_TYPE: ExitCode.INPUT_FAILED}
    classes = [
        node for module in modules.values() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    ]
    while found := [node for node in classes if node.name not in types and bases(node) & types.keys()]:
        for node in found:
            types[node.name] = types[(bases(node) & types.keys()).pop()]
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "exit_code":
                    types[node.name] = ExitCode[ast.unparse(line.value).removeprefix("ExitCode.")]
    return types


def bases(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def find_raised(package: Path = PACKAGE) -> list[Raised]:
    """Every place that makes an error, in the order of the files."""
    modules = read_modules(package)
    types = find_types(modules)
    found = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in types:
                found.append(describe(node, node.func.id, types[node.func.id], module, modules, package))
    return found


def describe(
    node: ast.Call, type: str, exit_code: ExitCode, module: Module, modules: dict[str, Module], package: Path
) -> Raised:
    given = dict(zip(("message", "hint"), node.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    message, hint = (spell(given[name], module, modules) if name in given else "" for name in ("message", "hint"))
    codes = tuple(literals(given["code"])) if "code" in given else ()
    place = f"{module.path.relative_to(package.parent).as_posix()}:{node.lineno}"
    return Raised(place, type, exit_code, codes, message, hint)


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be; an empty one for whatever is no literal."""
    if isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)
    else:
        yield node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def spell(node: ast.expr, module: Module, modules: dict[str, Module]) -> str:
    """A message as a template: what is filled in stands in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(spell(part, module, modules) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return spell(node.value, module, modules)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return spell(node.left, module, modules) + spell(node.right, module, modules)
    if isinstance(node, ast.IfExp):
        return " / ".join(spell(part, module, modules) or '""' for part in (node.body, node.orelse))
    if isinstance(node, ast.Name):
        home, name = module.imported.get(node.id, (module.name, node.id))
        if home in modules and (text := modules[home].texts.get(name)):
            return spell(text, modules[home], modules)
    return "{" + ast.unparse(node) + "}"


def page(raised: list[Raised]) -> str:
    """The whole page: code by code, then what has none yet."""
    by_code: dict[str, list[Raised]] = defaultdict(list)
    for one in raised:
        for code in one.codes or ("",):
            by_code[code].append(one)
    uncoded = by_code.pop("", [])
    lines = [HEAD]
    for code, places in sorted(by_code.items()):
        exits = " or ".join(f"{exit_code}" for exit_code in sorted({one.exit_code for one in places}))
        lines += [f"## `{code}`", "", f"Exit code {exits}.", "", *entries(places), ""]
    if uncoded:
        lines += ["## Without a code", "", *entries(uncoded), ""]
    return "\n".join(lines)


def entries(places: list[Raised]) -> list[str]:
    """One line for each message, with its hint."""
    found = {f"- `{flat(one.message)}`" + (f"  \n  `{flat(one.hint)}`" if one.hint else "") for one in places}
    return sorted(found)


def flat(text: str) -> str:
    """In one line, and nothing in it that ends a code span."""
    return " ".join(text.replace("`", "'").split())


if __name__ == "__main__":
    every = find_raised()
    PAGE.write_text(page(every), encoding="utf-8")
    bare = sorted({one.file for one in every if not one.codes or "" in one.codes})
    codes = {code for one in every for code in one.codes if code}
    print(f"{PAGE.relative_to(ROOT)}: {len(every)} errors, {len(codes)} codes")
    print("without a literal code:", *(bare or ["none"]), sep="\n  ")
