"""How much work a program gives MLX, as counts, which no load on the machine changes; of any program.

On a GPU nearly every operation but the views is a kernel to launch, and every evaluation a chance for the device
to wait for Python. Counts of a CPU and of a GPU differ: what is one operation of `mx.fast` on a GPU is spelled out
on a CPU.
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

OPERATION = re.compile(r'label ="([^"]*)", shape=rectangle')  # in what `mx.export_to_dot` writes
EXPLICIT = ("eval", "async_eval")  # functions of `mlx.core`
IMPLICIT = ("tolist", "item", "__bool__", "__int__", "__float__", "__array__")  # methods of its arrays
# Another look at the same memory, as a rule; nothing is computed.
VIEWS = frozenset(
    "AsStrided Broadcast BroadcastAxes Copy ExpandDims Flatten Reshape Slice Split Squeeze StopGradient Transpose"
    " Unflatten View".split()
)


@dataclass
class Work:
    """What MLX was given to do.

    Attributes:
        operations: nodes of the graphs that were evaluated, by kind; a compiled function is one.
        evaluations: calls of `mx.eval`, `mx.async_eval` and of methods such as `item` that had something to
            compute; those that only wait for it are none.
    """

    operations: Counter[str] = field(default_factory=Counter)
    evaluations: int = 0

    @property
    def computing(self) -> int:
        """Operations but the views."""
        return sum(count for kind, count in self.operations.items() if kind not in VIEWS)


@contextmanager
def counting() -> Iterator[Work]:
    """Count what is evaluated in the block, in any thread."""
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
    """Operations still to be done for the arrays in a tree, by kind."""
    arrays = [leaf for _, leaf in tree_flatten(tree) if isinstance(leaf, mx.array)]
    if not arrays:
        return Counter()
    graph = io.StringIO()
    mx.export_to_dot(graph, *arrays)
    return Counter(OPERATION.findall(graph.getvalue()))


@contextmanager
def timing_modules(model: nn.Module) -> Iterator[dict[str, float]]:
    """Seconds in modules of each kind, without the modules in them; every module is evaluated by itself.

    That takes longer than evaluating all at once, so the shares are what is to be read.
    """
    seconds: dict[str, float] = defaultdict(float)
    inner = [0.0]  # time in modules within the current one, at each depth

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
    mx.disable_compile()  # what is compiled cannot be evaluated half-way
    try:
        with ExitStack() as patches:
            for kind in kinds:
                if "__call__" in vars(kind):
                    patches.enter_context(_patched(kind, "__call__", watch(kind.__call__)))
            yield seconds
    finally:
        mx.enable_compile()


def _kind(module: nn.Module) -> str:
    """Class of a module; of ours, with the file's name: several have an `Attention`."""
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
