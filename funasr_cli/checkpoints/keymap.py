"""Rules that map a checkpoint's tensors to the names and layout of the MLX model.

Each family defines the rules of its layouts. Model attributes are named after the keys of the upstream checkpoint,
so few rules are needed. `PLACEHOLDERS` defines the names in braces.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from funasr_cli.checkpoints.tensors import DTYPE_BYTES, Shape, Tensor, stacked
from funasr_cli.compute.backend import mx, nn, tree_flatten
from funasr_cli.errors import ModelError

FSMN_SUFFIX = ".fsmn_block.weight"
# Names of LoRA adapter tensors in loralib and PEFT. An adapter is added to a matrix during the computation.
LORA = re.compile(r"(^|\.)lora(_?[AB]|_(E|up|down|embedding_A|embedding_B|magnitude_vector))(\.|$)")
MERGING = (
    "add --lora FOLDER if PEFT wrote one; for FunASR's, set llm_conf.use_lora and lora_conf (r, lora_alpha) in "
    "config.yaml; or merge them: W + B·A·alpha/r for each weight W"
)

COPY = "unchanged"
SWAP = "last two axes swapped: PyTorch (width, 1, taps), MLX (width, taps, 1)"
STACK = "q, k and v stacked, in this order, along the first axis"
HEAD = "omitted if the configuration ties it to the embedding; an error if it is tied but differs"


@dataclass(frozen=True)
class Rule:
    """A mapping rule: the name in the checkpoint, the name in the MLX model, and the conversion."""

    source: str
    here: str
    how: str = COPY


@dataclass(frozen=True)
class Tied:
    """The names of an output head and of the embedding it is tied to."""

    head: str
    embedding: str


PLACEHOLDERS = {  # regular expression, description
    "anything": (r".+", "any name"),
    "p": (r"weight|bias", "weight or bias"),
    "qkv": (r"[qkv]", "q, k or v"),
    "n": (r"\d+", "a number, the same on both sides"),
    "block": (r"\d+", "a number in the source; here encoders0.0, encoders.0 ... or tp_encoders.0 ..., in order"),
    "last": (r"\d+", "the number of the last block of each kind in the source; here after_norm or tp_norm"),
}

SAME = (Rule("{anything}", "{anything}"),)  # names are already those of the model
FSMN = Rule(f"{{anything}}{FSMN_SUFFIX}", f"{{anything}}{FSMN_SUFFIX}", SWAP)  # FunASR's SAN-M layers

Spell = Callable[[int], str | None]  # from a number in the source to the text here; None: the rule does not apply


def translate(
    tensors: Mapping[str, Tensor],
    rules: Iterable[Rule],
    where: str,
    *,
    tied: Tied | None = None,
    **spell: Spell,
) -> dict[str, Tensor]:
    """Return the tensors with the names and layout of the MLX model.

    The first matching rule applies. A tensor that matches no rule keeps its name.

    Args:
        tensors: the checkpoint's tensors by name.
        rules: the rules of its layout.
        where: the file, for messages.
        tied: the output head and its embedding, if the configuration ties them.
        spell: for each placeholder, how its number is written here.

    Raises:
        ModelError: two tensors map to the same name, one of q, k and v is missing or misshapen, a tied head
            differs from its embedding, or there are unmerged adapters.
    """
    if adapters := sorted(filter(LORA.search, tensors)):
        raise lora_unmerged(where, f"{len(adapters)} tensors, such as {adapters[0]}")
    found: dict[str, Tensor] = {}
    stacks: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        how, here, letter = _first_match(name, rules, spell)
        into, key = (stacks[here], letter) if how == STACK else (found, here)
        if key in into:
            raise ModelError(f"{where}: {name} and another tensor both map to {here}", code="model-misfit")
        rows = tensor.shape[0] if tensor.shape else 1
        into[key] = tensor.swapped() if how == SWAP else replace(tensor, parts=((name, rows),))
    for here, parts in stacks.items():
        if here in found:
            raise ModelError(f"{where}: {here} is present both whole and in parts", code="model-misfit")
        if missing := [letter for letter in "qkv" if letter not in parts]:
            message = f"{where}: {here} lacks the part {missing[0]}"
            raise ModelError(message, "the checkpoint is incomplete", code="model-misfit")
        ordered = [parts[letter] for letter in "qkv"]
        if len({(part.dtype, part.shape[1:]) for part in ordered}) > 1 or not all(part.shape for part in ordered):
            what = f"the parts q, k and v of {here} differ in type or width"
            raise ModelError(f"{where}: {what}", code="model-misfit")
        found[here] = stacked(ordered)
    if tied and tied.head in found and tied.embedding in found:
        _check_tied(found.pop(tied.head), found[tied.embedding], tied, where)
    return found


def lora_unmerged(where: str, what: str) -> ModelError:
    """Return the error for LoRA adapters that have not been merged into the matrices."""
    return ModelError(f"{where}: LoRA weights are not merged ({what})", MERGING, code="lora-unmerged")


def _check_tied(head: Tensor, embedding: Tensor, tied: Tied, where: str) -> None:
    if embedding.dtype not in DTYPE_BYTES or 0 in embedding.shape:  # unreadable: a later check rejects it
        return
    alike = head.dtype in DTYPE_BYTES and head.shape == embedding.shape
    if not alike or not mx.array_equal(head.read_in(embedding.dtype), embedding.read(), equal_nan=True):
        message = f"{where}: the configuration ties {tied.head} to {tied.embedding}, but they differ"
        hint = "set tie_word_embeddings to false in the decoder's config.json if the head was trained separately"
        raise ModelError(message, hint, code="model-misfit")


def _first_match(name: str, rules: Iterable[Rule], spell: Mapping[str, Spell]) -> tuple[str, str, str]:
    """Return the conversion, the name here, and the letter of q, k or v. An unmatched name stays unchanged."""
    for rule in rules:
        if match := _pattern(rule.source).fullmatch(name):
            words = match.groupdict()
            spelled = {key: spell[key](int(word)) if key in spell else word for key, word in words.items()}
            if None not in spelled.values():
                return rule.how, rule.here.format(**spelled), str(spelled.get("qkv", ""))
    return COPY, name, ""


@cache
def _pattern(source: str) -> re.Pattern[str]:
    pattern = re.escape(source)
    for name, (words, _) in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{words})")
    return re.compile(pattern)


def model_shapes(model: nn.Module) -> dict[str, Shape]:
    """Return the names and shapes of the tensors that a model expects."""
    return {name: tuple(tensor.shape) for name, tensor in tree_flatten(model.parameters())}
