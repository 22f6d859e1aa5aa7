"""What a ``tokenizer.json`` may consist of: the parts of Qwen's, which lengthen no text beyond measure.

The library knows many more. Some replace every letter by many, again and again, and some search with a pattern of
the file's own, which can take for ever.
"""

from collections.abc import Iterator
from typing import Any

MOST_ADDED_TOKENS = 10_000  # Qwen3 has 26
LONGEST_TOKEN = 1024  # characters; Qwen3's has 256
MOST_PARTS = 8  # within each other or in a row
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]  # a template that adds nothing
MEMBERS = {"pre_tokenizer": "pretokenizers", "post_processor": "processors", "decoder": "decoders"}

Part = dict[str, Any]


def unknown_parts(tokenizer: Part) -> Iterator[str]:
    """What is not known, each as it may enter a message.

    Args:
        tokenizer: content of a ``tokenizer.json``.
    """
    normalizer = tokenizer.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        yield f"normalizer {_type(normalizer)}"
    for place in MEMBERS:
        yield from (f"{place} {what}" for what in _unknown_steps(place, tokenizer.get(place)))
    yield from _unknown_in_model(tokenizer.get("model"))
    added = tokenizer.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        yield "added_tokens that are no list of objects"
    elif len(added) > MOST_ADDED_TOKENS:
        yield f"{len(added):,} added tokens"
    elif any(_is_long(token.get("content")) for token in added):
        yield f"added tokens of more than {LONGEST_TOKEN} characters"


def _unknown_steps(place: str, part: Any) -> Iterator[str]:
    steps = list(_steps(part, MEMBERS[place]))
    if len(steps) > MOST_PARTS:
        yield f"of more than {MOST_PARTS} steps"
    # Each ByteLevel writes a byte as a letter that may take two.
    if place == "pre_tokenizer" and sum(_type(step) == "'ByteLevel'" for step in steps) > 1:
        yield "'ByteLevel' twice"
    yield from (what for step in steps[:MOST_PARTS] if (what := _unknown_step(place, step)))


def _steps(part: Any, members: str) -> Iterator[Any]:
    """Those of a sequence, and of sequences in it."""
    if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get(members), list):
        for member in part[members]:
            yield from _steps(member, members)
    elif part is not None:
        yield part


def _unknown_step(place: str, step: Any) -> str | None:
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "ByteLevel":
        return None
    if place == "pre_tokenizer" and kind == "Split":
        return None if step.get("pattern") == {"Regex": QWEN_SPLIT} else "'Split' by another pattern than Qwen's"
    if place == "post_processor" and kind == "TemplateProcessing" and step.get("single") == TEXT_ALONE:
        return None
    return _type(step)


def _unknown_in_model(model: Any) -> Iterator[str]:
    if _type(model) != "'BPE'":
        yield f"model {_type(model)}"
        return
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            yield f"model with {name}"
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict) and any(map(_is_long, vocabulary)):
        yield f"tokens of more than {LONGEST_TOKEN} characters"


def _is_long(token: Any) -> bool:
    return isinstance(token, str) and len(token) > LONGEST_TOKEN


def _type(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else part
    return repr(kind)
