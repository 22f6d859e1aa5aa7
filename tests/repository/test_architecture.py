"""The rules of docs/architecture.md, checked for every import, at module level or within a function."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "funasr_cli"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([\w/]+(?:\.py|/))`", PAGE))
FOLDERS = tuple(  # documented as whole folders
    f"families/{name}/"
    for name in (
        "campplus",
        "ct_punc",
        "fun_asr_nano",
        "funasr_qwen4b",
        "paraformer",
        "qwen3",
        "sense_voice",
        "whisper",
    )
)

# From bottom to top: a module may import from its own package and from lower lines.
LAYERS = """
errors demo
characters extras languages paths tags vocabulary
options units transcript linebreaks
measure capabilities tags subtitles
compute formats
features
audio
models
native
inputs decoding writers checkpoints
pictures speech_model sources
punctuation_model
speaker_model
text_model
align
families
hubs
scheduling conversion
diarization funasr_clusters
speaker_turns
text_generator
stages
pipeline
verification benchmarks alignment_picture server
funasr_cli
cli
__main__
"""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
HEIGHT = {name: height for height, line in enumerate(LAYERS.split("\n")) for name in line.split()}
NOT_EVEN_BELOW = {  # exceptions: lower layers that must not be imported
    "audio": {"models", "options"},
    "models": {
        *"audio capabilities characters demo languages measure options paths".split(),
        *"tags transcript units vocabulary".split(),
    },
}
SEPARATE = ("verification.reference",)  # other programs
HEAVY = {
    "librosa",
    "torch",
    "modelscope_hub",
    "modelscope",
    "matplotlib",
    "rapidfuzz",
    "numba",
    "scipy",
    "sklearn",
    "umap",
}
OWNERS = {  # the only packages that may import a library
    "mlx": ("compute.backend",),
    "librosa": ("alignment_picture",),
    "typer": ("cli",),
    "rich": ("cli",),
    "torch": ("checkpoints", "verification"),
    "sentencepiece": ("checkpoints",),
    "starlette": ("server",),
    "uvicorn": ("server",),
}
FAMILIES = {path.parent.name for path in PACKAGE.glob("families/*/__init__.py")}
OF_ANY_FAMILY = ("checkpoints", "conversion", "hubs")  # and must not import one
PURE = {
    *"compute errors features models numpy math dataclasses collections concurrent itertools typing".split()
}  # no I/O in these
OBJECTS = re.findall(r"`([\w/]+\.py): (\w+)`", PAGE)  # modules, each with a function or class in it
NAMED |= {path for path, _ in OBJECTS}


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module by its name within the package; the package itself is `funasr_cli`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "funasr_cli"
        if not name.startswith(SEPARATE):
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module that run when it is imported."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not for_types and not isinstance(child, FUNCTION | ast.Lambda):
            yield child
            yield from run_at_import(child)


def imports(module: str, *, at_top: bool = False) -> Iterator[str]:
    """Yield a module's imports: modules of this package without the package's name, and other modules."""
    tree = modules()[module]
    for node in run_at_import(tree) if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports are not allowed"
            assert node.module
            for alias in node.names:
                if alias.name == "__version__":
                    continue
                within = f"{node.module}.{alias.name}".removeprefix("funasr_cli.")
                is_module = node.module.startswith("funasr_cli") and within in modules()
                yield within if is_module else node.module.removeprefix("funasr_cli.")


def top(name: str) -> str:
    return name.split(".")[0]


def belongs(module: str, owners: tuple[str, ...]) -> bool:
    return any(module == owner or module.startswith(f"{owner}.") for owner in owners)


def upward() -> set[tuple[str, str]]:
    """Return the imports within this package that the layers forbid."""
    return {
        (module, other)
        for module in modules()
        for other in imports(module)
        if top(other) in HEIGHT
        and top(other) != top(module)
        and (HEIGHT[top(other)] >= HEIGHT[top(module)] or top(other) in NOT_EVEN_BELOW.get(top(module), ()))
    }


@pytest.mark.slow
def test_imports_point_down() -> None:
    """So there are no cycles between packages, and only `__main__` imports `cli`."""
    assert {top(module) for module in modules()} == set(HEIGHT)
    assert upward() == set()


def family_of(module: str) -> str | None:
    """Return the family that a module belongs to."""
    match module.split("."):
        case ["families", folder, *_] if folder in FAMILIES:
            return folder
    return None


def test_families_do_not_import_each_other() -> None:
    """Only the registry imports them, and shared code is outside of their folders."""
    assert "fun_asr_nano" in FAMILIES
    users = {(module, family_of(other)) for module in modules() for other in imports(module) if family_of(other)}
    within = {(module, family) for module, family in users if top(module) == "families"}
    assert {(module, family) for module, family in within if family_of(module) != family} == {
        ("families.registry", family) for family in FAMILIES
    }
    assert {(module, family) for module, family in users if top(module) in OF_ANY_FAMILY} == set()


@pytest.mark.slow
@pytest.mark.parametrize("library", OWNERS)
def test_libraries_with_a_single_owner(library: str) -> None:
    users = {module for module in modules() for other in imports(module) if top(other) == library}
    assert users
    assert {module for module in users if not belongs(module, OWNERS[library])} == set()


def test_no_heavy_library_is_imported_at_module_level() -> None:
    heavy = {(module, top(other)) for module in modules() for other in imports(module, at_top=True)}
    assert {(module, other) for module, other in heavy if other in HEAVY} == set()


def test_the_command_line_uses_no_arrays() -> None:
    command = [module for module in modules() if top(module) in ("cli", "server")]
    assert {top(other) for module in command for other in imports(module)}.isdisjoint({"numpy", "mlx"})
    names = [
        alias.name
        for module in command
        for node in ast.walk(modules()[module])
        if isinstance(node, ast.ImportFrom) and node.module == "funasr_cli.compute.backend"
        for alias in node.names
    ]
    assert {"mx", "nn"}.isdisjoint(names)


def test_the_scheduler_imports_no_model() -> None:
    """It may import only the model interface."""
    known = {*"audio errors languages options scheduling speech_model transcript units decoding.agreement".split()}
    scheduling = [module for module in modules() if top(module) == "scheduling"]
    ours = {other for module in scheduling for other in imports(module) if top(other) in HEIGHT}
    assert {other for other in ours if not {other, top(other)} & known} == set()
    assert {top(other) for module in scheduling for other in imports(module)}.isdisjoint({"mlx", "tokenizers"})


def test_documented_functions_and_classes_exist() -> None:
    assert OBJECTS
    for path, name in OBJECTS:
        tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, FUNCTION | ast.ClassDef)}
        assert name in defined, f"{path}: {name}"


def calls(module: str) -> set[str]:
    """Return the names of the functions that a module calls."""
    nodes = [node.func for node in ast.walk(modules()[module]) if isinstance(node, ast.Call)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def test_models_do_no_io() -> None:
    models = [module for module in modules() if top(module) == "models"]
    assert {top(other) for module in models for other in imports(module)} <= PURE
    assert set.union(*map(calls, models)).isdisjoint({"open", "print", "input"})


def test_only_the_command_line_prints() -> None:
    assert {module for module in modules() if "print" in calls(module) and top(module) != "cli"} <= {
        "__main__",
        "native.build",  # a separate program
        "hubs.modelscope",  # runs in a separate process
    }


@pytest.mark.slow
def test_every_module_is_documented() -> None:
    """A module is documented by its own name or by its folder's."""
    paths = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")
    }
    found = {path for path, tree in paths.items() if len(tree.body) > 1}
    assert "pipeline.py" in found
    assert {path for path in found - NAMED if not path.startswith(FOLDERS)} == set()
    assert set(FOLDERS) <= NAMED


def test_documented_files_exist() -> None:
    assert {name for name in NAMED if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()
