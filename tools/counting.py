"""Count the operations and evaluations that a program gives to MLX, independently of the machine's load.

On a GPU, nearly every operation except a view launches a kernel, and at every evaluation the device may wait for
Python. CPU and GPU counts differ: an operation of `mx.fast` is a single one on a GPU and is decomposed on a CPU.
"""

import functools
import io
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from funasr_cli.compute.backend import mx, nn, tree_flatten

OPERATION = re.compile(r'label ="([^"]*)", shape=rectangle')  # in the output of `mx.export_to_dot`
EXPLICIT = ("eval", "async_eval")  # functions of `mlx.core`
IMPLICIT = ("tolist", "item", "__bool__", "__int__", "__float__", "__array__")  # methods of its arrays
# These usually only reinterpret memory and compute nothing.
VIEWS = frozenset(
    "AsStrided Broadcast BroadcastAxes Copy ExpandDims Flatten Reshape Slice Split Squeeze StopGradient Transpose"
    " Unflatten View".split()
)


@dataclass
class Work:
    """The work given to MLX.

    Attributes:
        operations: nodes of the evaluated graphs, by kind; a compiled function counts as one.
        evaluations: calls of `mx.eval`, `mx.async_eval` and of methods such as `item` that had something to
            compute; calls that only wait do not count.
    """

    operations: Counter[str] = field(default_factory=Counter)
    evaluations: int = 0

    @property
    def computing(self) -> int:
        """The number of operations except views."""
        return sum(count for kind, count in self.operations.items() if kind not in VIEWS)


@contextmanager
def counting() -> Iterator[Work]:
    """Count everything evaluated in the block, in any thread."""
    work = Work()

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*arguments: Any, **settings: Any) -> Any:
            operations = operations_of(arguments)
            work.operations += operations
            work.evaluations += bool(operations)
            return function(*arguments, **settings)

        return watched

    with ExitStack() as patches:
        for name in EXPLICIT:
            patches.enter_context(_patched(mx, name, watch(getattr(mx, name))))
        for name in IMPLICIT:
            if method := getattr(mx.array, name, None):
                patches.enter_context(_patched(mx.array, name, watch(method)))
        yield work


def operations_of(tree: Any) -> Counter[str]:
    """Count the pending operations of the arrays in a tree, by kind."""
    arrays = [leaf for _, leaf in tree_flatten(tree) if isinstance(leaf, mx.array)]
    if not arrays:
        return Counter()
    graph = io.StringIO()
    mx.export_to_dot(graph, *arrays)
    return Counter(OPERATION.findall(graph.getvalue()))


@contextmanager
def timing_modules(model: nn.Module) -> Iterator[dict[str, float]]:
    """Measure seconds per kind of module, excluding nested modules. Every module is evaluated separately.

    This is slower than evaluating everything at once, so only the shares are meaningful.
    """
    seconds: dict[str, float] = defaultdict(float)
    inner = [0.0]  # time in modules nested in the current one, at each depth

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(module: nn.Module, *arguments: Any, **settings: Any) -> Any:
            mx.eval([leaf for _, leaf in tree_flatten(arguments) if isinstance(leaf, mx.array)])
            started = time.perf_counter()
            inner.append(0.0)
            result = call(module, *arguments, **settings)
            mx.eval(result)
            taken_s = time.perf_counter() - started
            seconds[_kind(module)] += taken_s - inner.pop()
            inner[-1] += taken_s
            return result

        return watched

    kinds = {type(module) for module in model.modules()}
    mx.disable_compile()  # compiled functions cannot be evaluated in parts
    try:
        with ExitStack() as patches:
            for kind in kinds:
                if "__call__" in vars(kind):
                    patches.enter_context(_patched(kind, "__call__", watch(kind.__call__)))
            yield seconds
    finally:
        mx.enable_compile()


def _kind(module: nn.Module) -> str:
    """Return a module's class; for our own, with the file name, since several files have an `Attention`."""
    kind = type(module)
    package, _, file = kind.__module__.rpartition(".")
    return f"{file}.{kind.__name__}" if package.startswith("funasr_cli") else kind.__name__


@contextmanager
def _patched(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
