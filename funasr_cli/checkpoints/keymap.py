"""Names and layouts: how the tensors of a checkpoint become those of the MLX model, as data, checked strictly.

The rules of each layout are its family's. A model's attributes are named after the upstream checkpoint's keys, so
that the map of those is short. What a rule's braces stand for is said in `PLACEHOLDERS`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from funasr_cli.checkpoints.tensors import DTYPE_BYTES, Shape, Tensor, stacked
from funasr_cli.compute.backend import mx, nn, tree_flatten
from funasr_cli.errors import ModelError

FSMN_SUFFIX = ".fsmn_block.weight"
# Adapters that are added to a matrix while it is computed with, as loralib and PEFT call their tensors.
LORA = re.compile(r"(^|\.)lora(_?[AB]|_(E|up|down|embedding_A|embedding_B|magnitude_vector))(\.|$)")
MERGING = (
    "merge them: W + B·A·alpha/r for each weight W, alpha and r as in lora_conf; or PEFT's merge_and_unload()"
)

COPY = "as it is"
SWAP = "last two axes swapped: PyTorch (width, 1, taps), MLX (width, taps, 1)"
STACK = "q, k and v stacked, in this order, along the first axis"
HEAD = "left out if the configuration ties it to the embedding; refused if it is tied and differs"


@dataclass(frozen=True)
class Rule:
    """What a tensor is called there and here, and what happens to it on the way."""

    theirs: str
    here: str
    how: str = COPY


@dataclass(frozen=True)
class Tied:
    """The names of a head and of the embedding that serves as it."""

    head: str
    embedding: str


PLACEHOLDERS = {  # as patterns, and in words
    "anything": (r".+", "any name"),
    "p": (r"weight|bias", "weight or bias"),
    "qkv": (r"[qkv]", "q, k or v"),
    "n": (r"\d+", "a number, the same on both sides"),
    "block": (r"\d+", "there a number, here encoders0.0, encoders.0 ... or tp_encoders.0 ..., in this order"),
    "last": (r"\d+", "there the number of the last block of each kind, here after_norm or tp_norm"),
}

SAME = (Rule("{anything}", "{anything}"),)  # the model's own names
FSMN = Rule(f"{{anything}}{FSMN_SUFFIX}", f"{{anything}}{FSMN_SUFFIX}", SWAP)  # of FunASR's SAN-M layers

Spell = Callable[[int], str | None]  # how a number there is written here; None: the rule does not apply


def translate(
    tensors: Mapping[str, Tensor],
    rules: Iterable[Rule],
    where: str,
    *,
    tied: Tied | None = None,
    **spell: Spell,
) -> dict[str, Tensor]:
    """Tensors under the model's names and in its layout; those that no rule knows keep their names.

    The first rule that fits a name is taken. ``tied`` names a head and the embedding that it is, if the
    configuration says so, ``spell`` tells how the number behind a placeholder is written here.

    Raises:
        ModelError: two tensors have one name here, of q, k and v one is missing or misshapen, there is a head of
            its own where there should be none, or there are adapters.
    """
    if adapters := sorted(filter(LORA.search, tensors)):
        raise lora_unmerged(where, f"{len(adapters)} tensors, such as {adapters[0]}")
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        how, here, letter = _first_match(name, rules, spell)
        into, key = (stacks[here], letter) if how == STACK else (found, here)
        if key in into:
            raise ModelError(f"{where}: two tensors would be {here}, {name} is one of them", code="model-misfit")
        into[key] = tensor.swapped() if how == SWAP else tensor
    for here, parts in stacks.items():
        if here in found:
            raise ModelError(f"{where}: {here} is there both whole and in parts", code="model-misfit")
        if missing := [letter for letter in "qkv" if letter not in parts]:
            message = f"{where}: of {here}, the part {missing[0]} is missing"
            raise ModelError(message, "it is incomplete", code="model-misfit")
        ordered = [parts[letter] for letter in "qkv"]
        if len({(part.dtype, part.shape[1:]) for part in ordered}) > 1 or not all(part.shape for part in ordered):
            what = f"the parts q, k and v of {here} differ in type or width"
            raise ModelError(f"{where}: {what}", code="model-misfit")
        found[here] = stacked(ordered)
    if tied and tied.head in found and tied.embedding in found:
        _check_tied(found.pop(tied.head), found[tied.embedding], tied, where)
    return found


def lora_unmerged(where: str, what: str) -> ModelError:
    """What to raise of adapters that are not part of the matrices."""
    return ModelError(f"{where}: LoRA weights that are not merged ({what})", MERGING, code="lora-unmerged")


def _check_tied(head: Tensor, embedding: Tensor, tied: Tied, where: str) -> None:
    if embedding.dtype not in DTYPE_BYTES or 0 in embedding.shape:  # which cannot be read, and is refused for it
        return
    alike = head.dtype in DTYPE_BYTES and head.shape == embedding.shape
    if not alike or not mx.array_equal(head.read_in(embedding.dtype), embedding.read(), equal_nan=True):
        message = f"{where}: the configuration ties {tied.head} to {tied.embedding}, but they differ"
        hint = "set tie_word_embeddings in the decoder's config.json to false if the head was trained on its own"
        raise ModelError(message, hint, code="model-misfit")


def _first_match(name: str, rules: Iterable[Rule], spell: Mapping[str, Spell]) -> tuple[str, str, str]:
    """How, the name here, and which of q, k and v it is; a name that no rule knows stays as it is."""
    for rule in rules:
        if match := _pattern(rule.theirs).fullmatch(name):
            words = match.groupdict()
            spelled = {key: spell[key](int(word)) if key in spell else word for key, word in words.items()}
            if None not in spelled.values():
                return rule.how, rule.here.format(**spelled), str(spelled.get("qkv", ""))
    return COPY, name, ""


@cache
def _pattern(theirs: str) -> re.Pattern[str]:
    pattern = re.escape(theirs)
    for name, (words, _) in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{words})")
    return re.compile(pattern)


def model_shapes(model: nn.Module) -> dict[str, Shape]:
    """Names and shapes that a model expects."""
    return {name: tuple(tensor.shape) for name, tensor in tree_flatten(model.parameters())}
