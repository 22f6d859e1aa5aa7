"""Random sentences of the demo domain, in English and Mandarin.

The spoken form, which is also the written form without inverse text normalisation, consists of words without
punctuation: `three twenty pm`, `三点二十`. With it, the written form is the usual one: `3:20 pm`, `3点20`.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from . import phrases_en, phrases_zh
from .numbers import ENGLISH_NUMBER_WORDS, MANDARIN_NUMBER_WORDS, english_slot, mandarin_slot

LANGUAGES = {"en": phrases_en, "zh": phrases_zh}
DOMAINS = ("digits", "numbers", "times", "dates", "commands", "hours", "everyday")
HELD_OUT_SHARE = 20  # one in this many sentences is never used for training
MIN_HELD_OUT_UNITS = (
    3  # a language's sentences shorter than this many words or characters are too few to hold any out
)

_SLOT = re.compile(r"\{(\w+)\}")
_MARKS = re.compile(r"[.?。？]")


@dataclass(frozen=True)
class Sentence:
    """A sentence, as the spoken words and in writing with numbers in digits."""

    language: str  # "en" or "zh"
    domain: str
    spoken: str
    written: str


@dataclass(frozen=True)
class Mixture:
    """The weight of each domain, and the minimum and maximum length of a digit string."""

    weights: tuple[float, ...]  # one per domain in DOMAINS
    digits: tuple[int, int]


def draw_sentence(rng: random.Random, mixture: Mixture, held_out: bool) -> Sentence:
    """Draw a sentence from the training part or the held-out part of the grammar."""
    while True:
        language = rng.choice(("en", "zh"))
        domain = rng.choices(DOMAINS, mixture.weights)[0]
        template = rng.choice(LANGUAGES[language].TEMPLATES[domain])
        spoken, written = _finish(language, *_fill(template, language, rng, mixture.digits))
        if is_held_out(language, spoken) == held_out:
            return Sentence(language, domain, spoken, written)


def is_held_out(language: str, spoken: str) -> bool:
    """Return whether a sentence belongs to the held-out part; this depends only on its text."""
    units = len(spoken.split()) if language == "en" else len(spoken)
    return units >= MIN_HELD_OUT_UNITS and zlib.crc32(spoken.encode()) % HELD_OUT_SHARE == 0


def lexicon() -> Iterator[tuple[str, str, bool]]:
    """Yield (language, word, whether it can open a sentence) for every word of the grammar, spoken or written."""
    for language, phrases in LANGUAGES.items():
        templates = [template for group in phrases.TEMPLATES.values() for template in group]
        openers = {found[1] for found in map(_SLOT.match, templates) if found}
        pieces = [(template, not _SLOT.match(template)) for template in templates]
        pieces += [(text, slot in openers) for slot, texts in phrases.SLOTS.items() for text in texts.split("|")]
        numbers = ENGLISH_NUMBER_WORDS if language == "en" else MANDARIN_NUMBER_WORDS
        pieces += [(word, True) for word in numbers]
        for piece, opens in pieces:
            for position, word in enumerate(_MARKS.sub("", _SLOT.sub(" ", piece)).split()):
                yield language, word, opens and position == 0


def _fill(template: str, language: str, rng: random.Random, digits: tuple[int, int]) -> tuple[str, str]:
    """Fill a template's slots; both results have single spaces between words."""
    draw_number = english_slot if language == "en" else mandarin_slot
    spoken, written = [], []
    for part in re.split(r"(\{\w+\})", template):
        name = part[1:-1] if part.startswith("{") else ""
        if not name:
            pair = (part, part)
        elif name.isupper():
            pair = draw_number(name, rng, digits)
        else:
            pair = _fill(rng.choice(LANGUAGES[language].SLOTS[name].split("|")), language, rng, digits)
        spoken.append(pair[0])
        written.append(pair[1])
    return "".join(spoken), "".join(written)


def _finish(language: str, spoken: str, written: str) -> tuple[str, str]:
    spoken = _MARKS.sub("", spoken)
    if language == "zh":
        return spoken.replace(" ", ""), written.replace(" ", "")
    return spoken.lower(), written[0].upper() + written[1:]
