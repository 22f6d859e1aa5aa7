"""LoRA adapters: read one, check that it fits its base model, and merge it into the base's tensors.

An adapter adds two thin matrices to some matrices W of its base: the output is x·W^T + s·x·A^T·B^T, with A of
(rank, in), B of (out, rank), and s computed from `lora_alpha` and the rank. So W + s·B·A is the same model without
an adapter. Only what can be merged exactly is accepted.

Source: PEFT ``tuners/lora`` (``LoraConfig``, ``LoraLayer.update_layer``, ``Linear.get_delta_weight``) and FunASR
``models/lora/layers.py`` (``Linear``). What differs: tensors that do not fit are errors, and so are settings that
are unknown here.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from funasr_cli.checkpoints.checkpoint import Adaptation, Checkpoint, shortened
from funasr_cli.checkpoints.keymap import LORA, Tied
from funasr_cli.checkpoints.pickles import WRAPPERS, read_state_dict, require_torch
from funasr_cli.checkpoints.tensors import FLOATING, Shape, Tensor, open_safetensors
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, quoted, read_json, readable
from funasr_cli.checkpoints.values import Misstated, Options, section, stated_in, value
from funasr_cli.compute.backend import mx
from funasr_cli.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
# The name of A or B: FunASR's, and PEFT's in a file of adapters or, with the adapter's name, in a whole model.
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.weight|\.(?P<adapter>[^.]+)\.weight)?")
# Settings that are read below, that matter only while training, or that name what the tensors show anyway.
KNOWN = frozenset(
    ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "init_lora_weights",
     "peft_type", "bias", "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
     "init_param_path", "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core",
     "peft_version", "qalora_group_size", "revision", "target_modules", "task_type"),
)  # fmt: skip
ADDITIVE = (True, False, "gaussian", "orthogonal", "eva")  # initial values that leave the base as it is
PLAIN_PATTERN = re.compile(r"(\\\.|[\w.^-])+")  # a name as a regular expression, which cannot take long
MERGE_HINT = "merge it with PEFT's merge_and_unload(), and convert the result without --lora"
FIT_HINT = "give the base model that the adapter was trained on"
SHOWN = 6  # problems in a message


@dataclass(frozen=True)
class Factors:
    """The two matrices that are added to one of the base, as scale·B·A."""

    down: Tensor  # A, (rank, in)
    up: Tensor  # B, (out, rank)
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter that has been opened. Its values have not been read yet.

    Attributes:
        where: its file, for messages.
        name: its name, for a model's origin.
        factors: by the name of the module that they are added to.
        whole: tensors that replace the base's, by name (`modules_to_save`).
        weights: its file of tensors; None if they are in the base's.
        lora_conf: FunASR's own settings of the same adapter; None if FunASR cannot load it.
    """

    where: str
    name: str
    factors: Mapping[str, Factors]
    whole: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    weights: Path | None = None
    lora_conf: Options | None = None

    @property
    def summary(self) -> str:
        """What it changes, for the user."""
        ranks = sorted({factors.down.shape[0] for factors in self.factors.values()})
        kinds = sorted({module.rpartition(".")[2] for module in self.factors})
        changed = (
            f"{len(self.factors)} matri{'x' if len(self.factors) == 1 else 'ces'} ({readable(', '.join(kinds))})"
        )
        whole = f", {len(self.whole)} tensors replaced" if self.whole else ""
        return f"{changed}, rank {', '.join(map(str, ranks))}{whole}"


class Place(NamedTuple):
    """Where a tensor of a file is in the model: a tensor's name, its first row and the number of rows."""

    tensor: str
    row: int
    rows: int


def open_adapter(folder: Path) -> Adapter:
    """Open a folder that PEFT's ``save_pretrained`` has written.

    Raises:
        ModelError: files are missing or damaged, or the adapter is of a kind that cannot be merged exactly.
        SetupError: the weights are a pickle, and torch is not installed.
    """
    settings = read_json(file_in(folder, CONFIG, "this is not the folder of a LoRA adapter"))
    if (folder / WEIGHTS).exists() or not (folder / PICKLE).exists():
        path = file_in(folder, WEIGHTS, f"PEFT writes it next to {CONFIG}")
        stored = open_safetensors(path)
    else:
        require_torch(PICKLE)
        path = file_in(folder, PICKLE)
        stored = read_state_dict(path)
    tensors = {WRAPPERS.sub("", name): tensor for name, tensor in stored.items()}
    if len(tensors) < len(stored):
        message = f"{path}: has tensors both with and without a wrapper's prefix"
        raise ModelError(message, code="model-damaged")
    with stated_in(str(folder / CONFIG)):
        if (kind := settings.get("peft_type")) != "LORA":
            message = f"peft_type is {quoted(kind)}: only LORA can be merged"
            raise Misstated(message, MERGE_HINT, code="model-unsupported")
        _refuse_inexact(settings)
        saved = settings.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
            raise Misstated("modules_to_save is not a list of names", code="model-config")
        pairs, others = _pairs(tensors, str(path))
        if unknown := [name for name in others if not _is_within(name, tuple(saved))]:
            message = f"{path}: {unknown[0]} is neither a part of LoRA nor in modules_to_save"
            raise ModelError(message, MERGE_HINT, code="model-misfit")
        factors = _factors(pairs, settings, defaults=(8, 8))
    return Adapter(str(path), folder.resolve().name, factors, others, path)


def split(stored: Mapping[str, Tensor], llm_conf: Options, where: str) -> tuple[dict[str, Tensor], Adapter | None]:
    """Take the adapter out of a ``model.pt`` that FunASR has written with ``use_lora``.

    FunASR's own layers name the matrices ``lora_A`` and ``lora_B``; its earlier versions used PEFT, whose names
    and default values differ.

    Args:
        stored: all tensors, by name.
        llm_conf: the decoder's section of ``config.yaml``.
        where: the file of tensors, for messages.

    Returns:
        The other tensors; and the adapter, or None if there is none or ``use_lora`` is not stated.

    Raises:
        ModelError: the adapter is of a kind that cannot be merged exactly.
    """
    if not value(llm_conf, "use_lora", False) or not any(map(LORA.search, stored)):
        return dict(stored), None  # the caller refuses adapters that remain
    conf = section(llm_conf, "lora_conf")
    _refuse_inexact(conf)
    pairs, others = _pairs(stored, where)
    is_own = not any(name.endswith(".weight") for name in stored if FACTOR.fullmatch(name))
    factors = _factors(pairs, conf, defaults=(16, 32) if is_own else (8, 8))
    targets = sorted({module.rpartition(".")[2] for module in factors})
    ranks = {each.down.shape[0] for each in factors.values()}
    own = {"r": ranks.pop(), "lora_alpha": conf.get("lora_alpha", 32), "target_modules": targets}
    return others, Adapter(where, f"LoRA in {Path(where).name}", factors, lora_conf=own if is_own else None)


def apply(checkpoint: Checkpoint, adapter: Adapter, tied: Tied | None) -> Checkpoint:
    """Return the checkpoint with the adapter merged: W + scale·B·A in float32, one tensor in memory at a time.

    A module is found by its name in the base's file or in the model, or by the end of a name if that is unique: an
    adapter of the decoder alone does not know what the decoder is called here.

    Args:
        checkpoint: the base.
        adapter: what to merge.
        tied: the base's head and embedding, if they are one tensor.

    Raises:
        ModelError: the base has no such module, or the shapes differ; the message lists them.
    """
    if checkpoint.quantization:
        message = f"{adapter.where}: an adapter cannot be merged into the quantized weights of its base"
        raise ModelError(message, "give the base in its dense form", code="model-quantized")
    tensors, problems = dict(checkpoint.tensors), []
    find = _finder(checkpoint.tensors)
    edits: dict[str, list[tuple[Place, Factors | Tensor]]] = defaultdict(list)
    stated = {f"{module}.weight": factors for module, factors in adapter.factors.items()} | dict(adapter.whole)
    for name, change in stated.items():
        places = find(name)
        if len(places) != 1:
            problems.append(f"{name} is {'ambiguous' if places else 'missing'} in the base")
        elif problem := _misfit(name, change, checkpoint.tensors[places[0].tensor], places[0], tied):
            problems.append(problem)
        else:
            edits[places[0].tensor].append((places[0], change))
    if problems:
        listed = "".join(f"\n  {each}" for each in shortened(problems, SHOWN))
        message = f"{adapter.where}: {len(problems)} tensors do not fit {checkpoint.where}{listed}"
        raise ModelError(message, FIT_HINT, code="model-misfit")
    tensors |= {name: _edited(tensors[name], each) for name, each in edits.items()}
    earlier = f"{checkpoint.adaptation.name}, " if checkpoint.adaptation else ""
    return dataclasses.replace(
        checkpoint,
        tensors=tensors,
        weights=(*checkpoint.weights, *([adapter.weights] if adapter.weights else [])),
        adaptation=Adaptation(checkpoint, earlier + adapter.name, adapter.lora_conf),
        notes=(*checkpoint.notes, f"merged the adapter {readable(adapter.name)}: {adapter.summary}"),
    )


def _refuse_inexact(settings: Options) -> None:
    """Raise a `ModelError` for settings of PEFT or FunASR that make an adapter more than an addition."""
    bias, start = settings.get("bias", "none"), settings.get("init_lora_weights", True)
    others = sorted(name for name, stated in settings.items() if stated and name not in KNOWN)
    problem = ""
    if settings.get("use_dora"):
        problem = "DoRA (use_dora) scales each row of the sum, so it is not an addition"
    elif bias != "none":
        problem = f"bias is {quoted(bias)}: biases that were trained are not merged"
    elif settings.get("fan_in_fan_out"):
        problem = "fan_in_fan_out is set, but the base does not store matrices transposed"
    elif start not in (*ADDITIVE, None):
        problem = f"init_lora_weights is {quoted(start)}: the adapter is relative to a changed base"
    elif others:
        problem = f"{readable(others[0])} is {quoted(settings[others[0]])}, whose effect cannot be merged"
    if problem:
        raise Misstated(problem, MERGE_HINT, code="model-unsupported")


def _is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Return whether a tensor is in a module of `modules_to_save`, which states ends of names, as in PEFT."""
    words = name.split(".")
    return any(".".join(words[:count]).endswith(modules) for count in range(1, len(words)))


def _pairs(
    tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Return A and B of each module, and the tensors that do not belong to an adapter."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    others, adapters = {}, set()
    for name, tensor in tensors.items():
        if match := FACTOR.fullmatch(name):
            if match["factor"] in found[match["module"]]:
                raise ModelError(f"{where}: has two of {name}", DAMAGED_HINT, code="model-damaged")
            found[match["module"]][match["factor"]] = tensor
            adapters.add(match["adapter"])
        elif LORA.search(name):
            message = f"{where}: {name} belongs to a kind of adapter that cannot be merged exactly"
            raise ModelError(message, MERGE_HINT, code="model-unsupported")
        else:
            others[name] = tensor
    if len(adapters) > 1:
        named = readable(", ".join(sorted(map(str, adapters))))
        message = f"{where}: has several adapters ({named}), of which any may be active"
        raise ModelError(message, MERGE_HINT, code="model-unsupported")
    for module, parts in found.items():
        if len(parts) < 2:
            message = f"{where}: {module} has no lora_{'B' if 'A' in parts else 'A'}"
            raise ModelError(message, DAMAGED_HINT, code="model-misfit")
    return {module: (parts["A"], parts["B"]) for module, parts in found.items()}, others


def _factors(
    pairs: Mapping[str, tuple[Tensor, Tensor]], settings: Options, defaults: tuple[int, int]
) -> dict[str, Factors]:
    """Return what is added to each module, given PEFT's or FunASR's settings and the defaults of r and alpha."""
    r, alpha = value(settings, "r", defaults[0]), value(settings, "lora_alpha", float(defaults[1]))
    ranks, alphas = section(settings, "rank_pattern"), section(settings, "alpha_pattern")
    root = value(settings, "use_rslora", False)
    factors = {}
    for module, (down, up) in pairs.items():
        rank = value({"r": _of_module(ranks, module, r)}, "r", int)
        scaled = value({"lora_alpha": _of_module(alphas, module, alpha)}, "lora_alpha", float)
        scale = scaled / (math.sqrt(max(rank, 1)) if root else max(rank, 1))
        shapes = f"{module}: A is {down.shape} and B is {up.shape}"
        if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
            raise Misstated(f"{shapes}, which cannot be multiplied", MERGE_HINT, code="model-misfit")
        if down.shape[0] != rank:
            message = f"{shapes}, but the rank is stated as {rank}"
            raise Misstated(message, "correct r, on which the scale depends", code="model-misfit")
        if not (math.isfinite(scale) and scale > 0):
            raise Misstated(f"lora_alpha of {module} is {scaled}", code="model-config")
        factors[module] = Factors(down, up, scale)
    if not factors:
        raise Misstated("the adapter has no matrices", DAMAGED_HINT, code="model-misfit")
    return factors


def _of_module(patterns: Options, module: str, default: float) -> Any:
    """Return the rank or alpha that is stated for a module; see PEFT's ``get_pattern_key``."""
    for pattern, stated in patterns.items():
        if not PLAIN_PATTERN.fullmatch(pattern):
            message = f"the pattern {quoted(pattern)} is not a module's name"
            raise Misstated(message, MERGE_HINT, code="model-unsupported")
        if re.match(rf"(.*\.)?({pattern})$", module):
            return stated
    return default


def _finder(tensors: Mapping[str, Tensor]) -> Callable[[str], list[Place]]:
    """Return a function that finds the places of a tensor, given its name there, here, or the end of it."""
    exact: dict[str, set[Place]] = defaultdict(set)
    ends: dict[str, set[Place]] = defaultdict(set)
    for here, tensor in tensors.items():
        whole = Place(here, 0, tensor.shape[0] if tensor.shape else 1)
        row, names = 0, [(here, whole)]
        for stored, rows in tensor.parts:
            names.append((stored, Place(here, row, rows)))
            row += rows
        for name, place in names:
            exact[name].add(place)
            words = name.split(".")
            for begin in range(1, len(words)):
                ends[".".join(words[begin:])].add(place)

    def find(name: str) -> list[Place]:
        without = name.removeprefix("model.")  # which readers of Whisper's layouts take off
        return sorted(exact.get(name) or ends.get(name) or exact.get(without) or ())

    return find


def _misfit(name: str, change: Factors | Tensor, base: Tensor, place: Place, tied: Tied | None) -> str:
    """Return why a change does not fit its place; empty if it fits."""
    shape = (place.rows, *base.shape[1:]) if base.shape else ()
    if isinstance(change, Factors):
        wanted: Shape = (change.up.shape[0], change.down.shape[1])
        types = change.down.dtype, change.up.dtype
    else:
        wanted, types = change.shape, (change.dtype,) * 2
    if tied and place.tensor in (tied.head, tied.embedding):
        return f"{name} is the base's head and its embedding, of which an adapter changes only one"
    if wanted != shape:
        return f"{name} is {shape} in the base, but {wanted} with the adapter"
    if not {base.dtype, *types} <= set(FLOATING):
        return f"{name} is of type {base.dtype}, the adapter's of {' and '.join(types)}"
    return ""


def _edited(base: Tensor, edits: Iterable[tuple[Place, Factors | Tensor]]) -> Tensor:
    def read() -> mx.array:
        values = base.read_in("float32")  # (out, in), or any shape
        for (_, row, rows), change in edits:
            kept = values[row : row + rows]
            if isinstance(change, Factors):
                up, down = change.up.read_in("float32"), change.down.read_in("float32")
                added = change.scale * mx.matmul(up, down)  # (out, rank)·(rank, in) -> (out, in)
                new = kept + added
            else:
                new = change.read_in("float32")
            values = mx.concatenate([values[:row], new, values[row + rows :]]) if rows < len(values) else new
        return values

    return Tensor("float32", base.shape, read, base.parts)
