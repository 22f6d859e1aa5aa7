"""Quantization recipes, and their form in config.json, which is that of mlx-lm."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from funasr_cli.checkpoints.tensors import Shape
from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.checkpoints.values import Misstated, Options, stated_in, value
from funasr_cli.errors import ModelError, UsageError
from funasr_cli.options import GROUP_SIZE, GROUP_SIZES, MIXED, ConvertOptions

READABLE_BITS = (2, 3, 4, 5, 6, 8)  # supported by `mx.quantize`
MODE = "affine"  # mode of `mx.quantize` with a scale and a bias for each group
GROUP_SIZE_HINT = "choose a smaller --group-size"
COARSE_BITS, FINE_BITS = 4, 8  # bits in the mixed recipe
# Modules with 8 bits in the mixed recipe: the embedding, which is also the output head, and in each layer the two
# matrices that llama.cpp's Q4_K_M and mlx-lm's mixed recipes also keep at higher precision. The names are those of
# Qwen3 and of Whisper.
FINE = ("embed_tokens", "lm_head", "v_proj", "down_proj", "token_embedding", "value", "mlp2")
# A quantized matrix is stored as these arrays and `weight`.
SCALES, BIASES = "scales", "biases"
PACKED = "uint32"  # storage type of quantized values


@dataclass(frozen=True)
class Groups:
    """How a matrix is quantized: bits per value, and the number of values in a row that share scale and bias."""

    bits: int
    group_size: int


@dataclass(frozen=True)
class Quantization:
    """Quantization of a model as its configuration states it, with exceptions by module path.

    A module is quantized if it has a tensor of scales.
    """

    usual: Groups
    exceptions: Mapping[str, Groups] = field(default_factory=dict)

    def __str__(self) -> str:
        others = sorted({groups.bits for groups in self.exceptions.values()} - {self.usual.bits})
        bits = " and ".join(map(str, [self.usual.bits, *others]))
        return f"quantized to {bits} bits in groups of {self.usual.group_size}"


@dataclass(frozen=True)
class Part:
    """The matrices that one quantization option applies to.

    Attributes:
        option: the field of `ConvertOptions`.
        name: the part's name in messages, such as "the encoder".
        prefixes: prefixes of its tensors' names.
        recipes: supported values, smallest size first.
        why: why other values are unsupported, for messages.
        whole: raise an error for a matrix whose rows do not divide into groups, instead of leaving it dense. If no
            matrix divides into groups, that is always an error.
    """

    option: str
    name: str
    prefixes: tuple[str, ...]
    recipes: tuple[str | int, ...]
    why: str = ""
    whole: bool = False


def refuse_recipes(options: ConvertOptions, parts: Sequence[Part], model: str) -> None:
    """Raise a `UsageError`, naming the model, for a recipe that its parts do not support."""
    known = {part.option: part for part in parts}
    for option in ("quantize", "quantize_encoder"):
        recipe, part = getattr(options, option), known.get(option)
        if recipe is not None and (part is None or recipe not in part.recipes):
            flag = f"--{option.replace('_', '-')} {recipe}"
            flags = ", ".join(f"--{each.option.replace('_', '-')} {one}" for each in parts for one in each.recipes)
            reason = f": {part.why}" if part and part.why else ""
            message = f"{flag}: not supported for {model}{reason}"
            raise UsageError(message, f"supported: {flags or 'none'}", code="option-unsupported")


def plan(options: ConvertOptions, parts: Sequence[Part], shapes: Mapping[str, Shape]) -> dict[str, Groups]:
    """Choose the modules to quantize from the shapes of the dense model's tensors.

    Raises:
        ModelError: rows do not divide into groups of this size; see `Part`.
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
            raise ModelError(message, GROUP_SIZE_HINT, code="model-misfit")
    for part in asked:
        if not any(module.startswith(part.prefixes) for module in chosen):
            message = f"no matrix of {part.name} has rows that divide into groups of {size}"
            raise ModelError(message, GROUP_SIZE_HINT, code="model-misfit")
    return chosen


def summarise(chosen: Mapping[str, Groups], parts: Sequence[Part]) -> Quantization | None:
    """Return the quantization of these modules, or None if there are none.

    The usual groups are the most common ones of the first part that has any. All others are exceptions.
    """
    if not chosen:
        return None
    found = ([groups for name, groups in chosen.items() if name.startswith(part.prefixes)] for part in parts)
    usual = Counter(next(filter(None, found))).most_common(1)[0][0]
    return Quantization(usual, {module: groups for module, groups in chosen.items() if groups != usual})


def joined(
    source: Quantization | None, added: Quantization | None, chosen: Mapping[str, Groups]
) -> Quantization | None:
    """Return the quantization of a model of which a part was quantized already, and `chosen` modules are now."""
    if source is None or added is None:
        return source or added
    others = {module: groups for module, groups in chosen.items() if groups != source.usual}
    return Quantization(source.usual, {**source.exceptions, **others})


def arrays(quantized: Iterable[str]) -> set[str]:
    """Return the names of the arrays in which quantized modules are stored."""
    return {f"{module}.{part}" for module in quantized for part in ("weight", SCALES, BIASES)}


def to_json(quantization: Quantization) -> dict[str, Any]:
    """Return the entry in config.json: ``{"bits": 4, "group_size": 64, "mode": "affine", "path": {...}}``."""
    exceptions = {name: asdict(groups) | {"mode": MODE} for name, groups in quantization.exceptions.items()}
    return asdict(quantization.usual) | {"mode": MODE} | exceptions


def from_json(content: Any, where: str) -> Quantization | None:
    """Parse the entry in config.json, None if there is none; raise a `ModelError` if it is unsupported."""
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
                what = f"{quoted(module)} is {quoted(stated)}: unknown quantization"
                raise Misstated(what, code="model-config")
        return Quantization(_groups(content), exceptions)


def _groups(stated: Options) -> Groups:
    bits, size, mode = value(stated, "bits", int), value(stated, "group_size", int), value(stated, "mode", MODE)
    if bits not in READABLE_BITS or size not in GROUP_SIZES or mode != MODE:
        what = f"{bits} bits in groups of {size}, mode {quoted(mode)}: unsupported quantization"
        raise Misstated(what, code="model-unsupported")
    return Groups(bits, size)
