"""Names and layouts: how the tensors of a checkpoint become those of the MLX model, as data, checked strictly.

The model's attributes are named after the upstream checkpoint's keys, so the map is short.
"""

from collections.abc import Mapping, Sequence

from funasr_cli.backend import nn, tree_flatten
from funasr_cli.errors import ModelError

CONTAINERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts wrap the tensors
WRAPPER_PREFIX = "module."  # left behind by PyTorch's DistributedDataParallel

FSMN_SUFFIX = ".fsmn_block.weight"  # PyTorch (width, 1, taps) -> MLX (width, taps, 1)
LM_HEAD = "llm.lm_head.weight"
EMBEDDING = "llm.model.embed_tokens.weight"
LLM_PREFIX = "llm."
CTC_PREFIXES = ("ctc_decoder.", "ctc.")

SHOWN_PROBLEMS = 6  # of each kind

Shape = tuple[int, ...]


def swaps_axes(name: str) -> bool:
    """Whether the last two axes of the tensor of this name change places on the way."""
    return name.endswith(FSMN_SUFFIX)


def mlx_shape(name: str, shape: Sequence[int]) -> Shape:
    """Shape in MLX of a tensor of this name and shape in PyTorch."""
    return (*shape[:-2], shape[-1], shape[-2]) if swaps_axes(name) and len(shape) > 1 else tuple(shape)


def strip_wrapper(name: str) -> str:
    """Name without the prefix of a distributed wrapper."""
    return name.removeprefix(WRAPPER_PREFIX)


def has_ctc(names: Mapping[str, object]) -> bool:
    """Whether the checkpoint brings a CTC branch: its tensors decide, never its configuration."""
    return any(name.startswith(CTC_PREFIXES) for name in names)


def model_shapes(model: nn.Module) -> dict[str, Shape]:
    """Names and shapes that a model expects."""
    return {name: tuple(tensor.shape) for name, tensor in tree_flatten(model.parameters())}


def check_tensors(expected: Mapping[str, Shape], found: Mapping[str, Shape], where: str) -> None:
    """Compare names and shapes.

    Raises:
        ModelError: listing what is missing, unexpected or misshapen.
    """
    problems = {
        "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in found],
        "unexpected": [f"{name} {shape}" for name, shape in found.items() if name not in expected],
        "misshapen": [
            f"{name} is {found[name]}, the configuration says {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    if count := sum(map(len, problems.values())):
        shown = [f"{kind}: {problem}" for kind, names in problems.items() for problem in _shortened(names)]
        raise ModelError(
            f"{where}: {count} tensors do not fit the configuration\n  " + "\n  ".join(shown),
            "the checkpoint is incomplete, or its configuration belongs to another one",
        )


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN_PROBLEMS
    return [*problems[:SHOWN_PROBLEMS], f"... and {more} more"] if more > 0 else problems
