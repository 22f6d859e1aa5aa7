"""Emotions and sounds that models hear beside the words, under names that are the same for all models.

Source of the emoji and of where they stand: FunASR ``funasr/utils/postprocess_utils.py`` (``emoji_dict``,
``format_str_v2``).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from funasr_cli.options import Tags
from funasr_cli.transcript import Score, Segment, TimedText, Word

EMOTIONS = {  # by name: the emoji, behind the text
    "happy": "😊", "sad": "😔", "angry": "😡", "neutral": "", "fearful": "😰", "disgusted": "🤢",
    "surprised": "😮", "other-emotion": "",
}  # fmt: skip
SOUNDS = {  # by name: the emoji, in front of the text
    "speech": "", "music": "🎼", "applause": "👏", "laughter": "😀", "crying": "😭", "sneeze": "🤧", "breath": "",
    "cough": "🤧", "singing": "", "noise": "",
}  # fmt: skip
Part = TypeVar("Part", Word, TimedText)
UNSAID = ("speech", "neutral", "other-emotion")  # what a text does not gain by


def decoration(tags: Iterable[str], style: Tags) -> tuple[str, str]:
    """Return what stands in front of a text with these tags, the last sound of the table first, and behind it."""
    found = set(tags)
    sounds = [name for name in reversed(SOUNDS) if name in found]
    emotions = [name for name in EMOTIONS if name in found]
    if style is Tags.EMOJI:
        return "".join(map(SOUNDS.__getitem__, sounds)), "".join(map(EMOTIONS.__getitem__, emotions))
    named = [f"[{name}] " for name in (*sounds, *emotions) if name not in UNSAID]
    return "".join(named) if style is Tags.TEXT else "", ""


def decorated(segment: Segment, style: Tags) -> Segment:
    """Return a segment whose text shows its tags, and so do its first and last word or part; times stay.

    A segment without any text shows them alone.
    """
    front, behind = decoration(segment.tags, style)
    if not front and not behind:
        return segment
    if not segment.text.strip():
        return replace(segment, text=f"{front}{behind}".strip(), words=(), pieces=(), scores=())
    start, end = len(segment.text) - len(segment.text.lstrip()), len(segment.text.rstrip())
    text = f"{segment.text[:start]}{front}{segment.text[start:end]}{behind}{segment.text[end:]}"
    words, pieces = _between(front, segment.words, behind), _between(front, segment.pieces, behind)
    scores = _inserted(_inserted(segment.scores, end, behind), start, front)
    return replace(segment, text=text, words=words, pieces=pieces, scores=scores)


def _inserted(scores: tuple[Score, ...], at: int, text: str) -> tuple[Score, ...]:
    """Insert a certain text at a position of what they spell; a piece that it falls into is cut in two."""
    before = 0
    for index, score in enumerate(scores):
        left, right = score.text[: max(0, at - before)], score.text[max(0, at - before) :]
        if right or (text and index == len(scores) - 1):
            parts = (replace(score, text=left), Score(text, 1.0), replace(score, text=right))
            return (*scores[:index], *(part for part in parts if part.text), *scores[index + 1 :])
        before += len(score.text)
    return scores


def _between(front: str, parts: tuple[Part, ...], behind: str) -> tuple[Part, ...]:
    changed = list(parts)
    if changed:
        changed[0] = replace(changed[0], text=f"{front}{changed[0].text}")
        changed[-1] = replace(changed[-1], text=f"{changed[-1].text}{behind}")
    return tuple(changed)
