"""Emotions and sounds that models detect in addition to words, under names shared by all models.

The emoji and their positions are those of FunASR, ``funasr/utils/postprocess_utils.py`` (``emoji_dict``,
``format_str_v2``).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from funasr_cli.options import Tags
from funasr_cli.transcript import Score, Segment, TimedText, Word

EMOTIONS = {  # name -> emoji, placed after the text
    "happy": "😊", "sad": "😔", "angry": "😡", "neutral": "", "fearful": "😰", "disgusted": "🤢",
    "surprised": "😮", "other-emotion": "",
}  # fmt: skip
SOUNDS = {  # name -> emoji, placed before the text
    "speech": "", "music": "🎼", "applause": "👏", "laughter": "😀", "crying": "😭", "sneeze": "🤧", "breath": "",
    "cough": "🤧", "singing": "", "noise": "",
}  # fmt: skip
Part = TypeVar("Part", Word, TimedText)
UNSAID = ("speech", "neutral", "other-emotion")  # left out of the text, since they tell a reader nothing


def decoration(tags: Iterable[str], style: Tags) -> tuple[str, str]:
    """Return the decorations before and after a text with these tags. Sounds are in reverse order of the table."""
    found = set(tags)
    sounds = [name for name in reversed(SOUNDS) if name in found]
    emotions = [name for name in EMOTIONS if name in found]
    if style is Tags.EMOJI:
        return "".join(map(SOUNDS.__getitem__, sounds)), "".join(map(EMOTIONS.__getitem__, emotions))
    named = [f"[{name}] " for name in (*sounds, *emotions) if name not in UNSAID]
    return "".join(named) if style is Tags.TEXT else "", ""


def decorated(segment: Segment, style: Tags) -> Segment:
    """Return the segment with its tags in its text, and in its first and last word or piece. Times do not change.

    If the segment has no text, its text becomes the tags alone.
    """
    before, after = decoration(segment.tags, style)
    if not before and not after:
        return segment
    if not segment.text.strip():
        return replace(segment, text=f"{before}{after}".strip(), words=(), pieces=(), scores=())
    start, end = len(segment.text) - len(segment.text.lstrip()), len(segment.text.rstrip())
    text = f"{segment.text[:start]}{before}{segment.text[start:end]}{after}{segment.text[end:]}"
    words, pieces = _between(before, segment.words, after), _between(before, segment.pieces, after)
    scores = _inserted(_inserted(segment.scores, end, after), start, before)
    return replace(segment, text=text, words=words, pieces=pieces, scores=scores)


def _inserted(scores: tuple[Score, ...], at: int, text: str) -> tuple[Score, ...]:
    """Insert a text with probability 1 at a character position, splitting the piece at that position in two."""
    start = 0  # where the current piece starts
    for index, score in enumerate(scores):
        left, right = score.text[: max(0, at - start)], score.text[max(0, at - start) :]
        if right or (text and index == len(scores) - 1):
            parts = (replace(score, text=left), Score(text, 1.0), replace(score, text=right))
            return (*scores[:index], *(part for part in parts if part.text), *scores[index + 1 :])
        start += len(score.text)
    return scores


def _between(before: str, parts: tuple[Part, ...], after: str) -> tuple[Part, ...]:
    changed = list(parts)
    if changed:
        changed[0] = replace(changed[0], text=f"{before}{changed[0].text}")
        changed[-1] = replace(changed[-1], text=f"{changed[-1].text}{after}")
    return tuple(changed)
