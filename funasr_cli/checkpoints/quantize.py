"""Recipes of quantization, and how config.json states them: in the form that mlx-lm uses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from funasr_cli.checkpoints.tensors import Shape
from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.checkpoints.values import Misstated, Options, stated_in, value
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.options import GROUP_SIZE, GROUP_SIZES, MIXED, ConvertOptions

READABLE_BITS = (2, 3, 4, 5, 6, 8)  # of `mx.quantize`
MODE = "affine"  # a scale and a bias for each group, as `mx.quantize` has them
SMALLER = "choose a smaller --group-size"
COARSE_BITS, FINE_BITS = 4, 8  # of the mixed recipe
# What the mixed recipe leaves in more bits: the embedding, which is the output head, too, and in each layer the
# two matrices that llama.cpp's Q4_K_M and mlx-lm's mixed recipes favour.
FINE = ("embed_tokens", "lm_head", "v_proj", "down_proj")
# The arrays that a quantized matrix becomes, `weight` among them.
SCALES, BIASES = "scales", "biases"
PACKED = "uint32"  # what quantized values are stored in


@dataclass(frozen=True)
class Groups:
    """How a matrix is quantized: bits of a value, and how many values of a row share a scale and a bias."""

    bits: int
    group_size: int


@dataclass(frozen=True)
class Quantization:
    """What a file says of its quantized matrices, with exceptions by the path of the module.

    Which ones are quantized, their scales show.
    """

    usual: Groups
    exceptions: Mapping[str, Groups] = field(default_factory=dict)

    def __str__(self) -> str:
        others = sorted({groups.bits for groups in self.exceptions.values()} - {self.usual.bits})
        bits = " and ".join(map(str, [self.usual.bits, *others]))
        return f"quantized to {bits} bits in groups of {self.usual.group_size}"


@dataclass(frozen=True)
class Part:
    """The matrices that an option of quantization means.

    Attributes:
        option: the field of `ConvertOptions`.
        name: what messages call them, such as "the encoder".
        prefixes: what the names of their tensors begin with.
        recipes: the values that may be chosen, the one that saves most first.
        why: why others may not, for messages.
        whole: refuse a matrix whose rows do not divide into groups, instead of leaving it dense; that no row
            divides is refused in any case.
    """

    option: str
    name: str
    prefixes: tuple[str, ...]
    recipes: tuple[str | int, ...]
    why: str = ""
    whole: bool = False


def refuse_recipes(options: ConvertOptions, parts: Sequence[Part], model: str) -> None:
    """Raise a `UsageError` for a recipe that these parts do not take, naming the model."""
    known = {part.option: part for part in parts}
    for option in ("quantize", "quantize_encoder"):
        recipe, part = getattr(options, option), known.get(option)
        if recipe is not None and (part is None or recipe not in part.recipes):
            typed = f"--{option.replace('_', '-')} {recipe}"
            taken = ", ".join(f"--{each.option.replace('_', '-')} {one}" for each in parts for one in each.recipes)
            reason = f": {part.why}" if part and part.why else ""
            message = f"{typed}: not for {model}{reason}"
            raise UsageError(message, f"it takes {taken or 'no recipe'}", code="option-unsupported")


def plan(options: ConvertOptions, parts: Sequence[Part], shapes: Mapping[str, Shape]) -> dict[str, Groups]:
    """The modules to quantize and how, from the shapes of the dense model's tensors.

    Raises:
        ModelError: rows do not divide into groups of this size, as `Part` says.
    """
    size = options.group_size or GROUP_SIZE
    asked = [part for part in parts if getattr(options, part.option)]
    chosen = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or len(shape) != 2:
            continue
        part = next((part for part in asked if name.startswith(part.prefixes)), None)
        if part and shape[-1] % size == 0:
            recipe = getattr(options, part.option)
            mixed = FINE_BITS if module.rpartition(".")[2] in FINE else COARSE_BITS
            chosen[module] = Groups(mixed if recipe == MIXED else int(recipe), size)
        elif part and part.whole:
            message = f"{name}: rows of {shape[-1]} values do not divide into groups of {size}"
            raise ModelError(message, SMALLER, code="model-misfit")
    for part in asked:
        if not any(module.startswith(part.prefixes) for module in chosen):
            message = f"no matrix of {part.name} has rows that divide into groups of {size}"
            raise ModelError(message, SMALLER, code="model-misfit")
    return chosen


def summarise(chosen: Mapping[str, Groups], parts: Sequence[Part]) -> Quantization | None:
    """The commonest groups of the first part that has any, and who has others; None where nothing is quantized."""
    if not chosen:
        return None
    found = ([groups for name, groups in chosen.items() if name.startswith(part.prefixes)] for part in parts)
    usual = Counter(next(filter(None, found))).most_common(1)[0][0]
    return Quantization(usual, {module: groups for module, groups in chosen.items() if groups != usual})


def to_json(quantization: Quantization) -> dict[str, Any]:
    """As it stands in config.json: ``{"bits": 4, "group_size": 64, "mode": "affine", "path": {...}}``."""
    exceptions = {name: asdict(groups) | {"mode": MODE} for name, groups in quantization.exceptions.items()}
    return asdict(quantization.usual) | {"mode": MODE} | exceptions


def from_json(content: Any, where: str) -> Quantization | None:
    """The opposite of `to_json`; None for nothing, a `ModelError` for what is not supported."""
    if content is None:
        return None
    with stated_in(where):
        if not isinstance(content, dict):
            raise Misstated("it is not a mapping", code="model-config")
        exceptions = {}
        for module, stated in content.items():
            if isinstance(stated, dict):
                exceptions[module] = _groups(stated)
            elif module not in ("group_size", "bits", "mode") and not isinstance(stated, bool):  # false: dense
                what = f"{quoted(module)} is {quoted(stated)}: no known quantization"
                raise Misstated(what, code="model-config")
        return Quantization(_groups(content), exceptions)


def _groups(stated: Options) -> Groups:
    bits, size, mode = value(stated, "bits", int), value(stated, "group_size", int), value(stated, "mode", MODE)
    if bits not in READABLE_BITS or size not in GROUP_SIZES or mode != MODE:
        what = f"{bits} bits in groups of {size}, {quoted(mode)}: no known quantization"
        raise Misstated(what, code="model-unsupported")
    return Groups(bits, size)
