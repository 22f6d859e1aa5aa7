"""Recipes of quantization, and how config.json states them: in the form that mlx-lm uses."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.tensors import Shape
from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.checkpoints.values import Misstated, Options, stated_in, value
from funasr_cli.errors import ModelError
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


def plan(options: ConvertOptions, shapes: Mapping[str, Shape]) -> dict[str, Groups]:
    """The modules to quantize and how, from the shapes of the dense model's tensors.

    Raises:
        ModelError: rows of the decoder do not divide into groups of this size, or none of the encoder's do. Single
            matrices of the encoder (the first, whose rows are features) stay dense.
    """
    size = options.group_size or GROUP_SIZE
    chosen = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or len(shape) != 2:
            continue
        divides = shape[-1] % size == 0
        if options.quantize and name.startswith(keymap.LLM_PREFIX):
            if not divides:
                message = f"{name}: rows of {shape[-1]} values do not divide into groups of {size}"
                raise ModelError(message, SMALLER, code="model-misfit")
            mixed = FINE_BITS if module.rpartition(".")[2] in FINE else COARSE_BITS
            chosen[module] = Groups(mixed if options.quantize == MIXED else int(options.quantize), size)
        elif options.quantize_encoder and name.startswith(keymap.ENCODER_PREFIX) and divides:
            chosen[module] = Groups(options.quantize_encoder, size)
    if options.quantize_encoder and not any(module.startswith(keymap.ENCODER_PREFIX) for module in chosen):
        message = f"no matrix of the encoder has rows that divide into groups of {size}"
        raise ModelError(message, SMALLER, code="model-misfit")
    return chosen


def summarise(chosen: Mapping[str, Groups]) -> Quantization | None:
    """The commonest groups, and who has others; None where nothing is quantized."""
    if not chosen:
        return None
    decoder = [groups for module, groups in chosen.items() if module.startswith(keymap.LLM_PREFIX)]
    usual = Counter(decoder or chosen.values()).most_common(1)[0][0]
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
