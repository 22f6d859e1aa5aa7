"""Tokens of Paraformer: their text, and the tokens of hotwords.

A token is a Chinese character, a word, or a piece of a word, which ends with ``@@`` if another piece follows.

Source: FunASR ``funasr/utils/postprocess_utils.py`` (``sentence_postprocess``, ``abbr_dispose``) and
``funasr/models/seaco_paraformer/model.py`` (``generate_hotwords_list``). What differs: with times, upstream puts
spaces between Chinese characters, too; here, times do not change the text. Upstream joins an open piece to the
next word, however far away, or loses it; here, it is a separate word. Here, a symbol such as a full stop has no
space before it; upstream may lose it together with that space. Upstream replaces hotwords that it cannot spell by
``<unk>``, which does nothing; here they are an error, and mixed ones such as ``AI模型`` are spelled in parts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from funasr_cli.characters import UNSPACED_LETTERS
from funasr_cli.errors import UsageError
from funasr_cli.families.paraformer.config import CONTROL

UNKNOWN = "<unk>"
NO_TEXT = (*CONTROL, UNKNOWN, "<OOV>")
OPEN = "@@"  # another piece of the word follows
LATIN = re.compile(rf"(?:(?![{UNSPACED_LETTERS}\d_])\w|')+")  # words between which there are spaces
HOTWORD_PART = re.compile(rf"[{UNSPACED_LETTERS}\d]|[^{UNSPACED_LETTERS}\d\s]+")


@dataclass
class Unit:
    """A word, or a character or symbol."""

    text: str
    sources: list[int]  # the token of each character
    is_latin: bool
    is_open: bool


def spell(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """Return the text of tokens, and for each of its characters the number of the token that it comes from.

    Only two words in Latin letters have a space between them, which counts to the second. Single letters in a row
    become an abbreviation in capitals.
    """
    units: list[Unit] = []
    for number, token in enumerate(tokens):
        body = token.removesuffix(OPEN)
        if token in NO_TEXT or not body:
            continue
        is_latin, sources = bool(LATIN.fullmatch(body)), [number] * len(body)
        if units and units[-1].is_open and units[-1].is_latin and is_latin:
            units[-1].text += body
            units[-1].sources += sources
            units[-1].is_open = token.endswith(OPEN)
        else:
            units.append(Unit(body, sources, is_latin, token.endswith(OPEN)))
    text, found = "", list[int]()
    letters = [False, *(unit.is_latin and len(unit.text) == 1 and unit.text.isascii() for unit in units), False]
    for index, unit in enumerate(units):
        before_is_letter, is_letter, after_is_letter = letters[index : index + 3]
        if index and unit.is_latin and units[index - 1].is_latin and not (before_is_letter and is_letter):
            text, found = text + " ", [*found, unit.sources[0]]
        text += unit.text.upper() if is_letter and (before_is_letter or after_is_letter) else unit.text
        found += unit.sources
    return text, found


def hotword_ids(hotword: str, spelling: Mapping[str, Sequence[str]], ids: Mapping[str, int]) -> list[int]:
    """Spell a hotword as token ids.

    Args:
        hotword: one or more words.
        spelling: the tokens of words and characters, from the model's ``seg_dict``.
        ids: the vocabulary.

    Raises:
        UsageError: the vocabulary cannot spell it.
    """
    tokens: list[str] = []
    for word in hotword.lower().split():
        parts = [word] if word in spelling else HOTWORD_PART.findall(word)
        for part in parts:
            tokens += spelling.get(part, [part])
    if not tokens or any(token in NO_TEXT or token not in ids for token in tokens):
        hint = "leave it out; this model takes Chinese words, and English ones that are in its seg_dict"
        raise UsageError(f"--hotword {hotword}: the model cannot spell it", hint, code="prompt-text")
    return [ids[token] for token in tokens]
