"""Emotion and sound tags in a text, at the positions of FunASR's emoji; see also `test_cli_tags.py`."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.transcripts import segment, spoken, transcript, transcripts, worded

from funasr_cli.cli.output import tinted_lines
from funasr_cli.formats import as_dict
from funasr_cli.options import Tags, Timestamps
from funasr_cli.subtitles import make_cues
from funasr_cli.tags import EMOTIONS, SOUNDS, UNSAID, decorated, decoration
from funasr_cli.transcript import Score, Segment, Transcript
from funasr_cli.writers import WRITERS, Style

SHOWN = (Tags.TEXT, Tags.EMOJI)


@pytest.mark.parametrize(
    ("tags", "text", "emoji", "names"),
    [
        (("happy", "speech"), "你好", "你好😊", "[happy] 你好"),
        (("neutral", "speech"), "你好", "你好", "你好"),
        (("other-emotion", "music"), "hi", "🎼hi", "[music] hi"),
        # The last sound in the table is outermost, regardless of the model's order.
        (("music", "laughter", "sad"), "hi", "😀🎼hi😔", "[laughter] [music] [sad] hi"),
        (("laughter", "sad", "music"), "hi", "😀🎼hi😔", "[laughter] [music] [sad] hi"),
        (("music",), "", "🎼", "[music]"),
        (("breath", "neutral"), " a\n", " a\n", " [breath] a\n"),
        ((), "a", "a", "a"),
    ],
)
def test_positions_of_tags(tags: tuple[str, ...], text: str, emoji: str, names: str) -> None:
    part = dataclasses.replace(segment(0.0, 1.0, text), tags=tags)
    assert [decorated(part, style).text for style in Tags] == [text, names, emoji]


def test_representations_of_each_tag() -> None:
    """Tags with an emoji also have a name. Tags without information are not shown at all."""
    for name in (*EMOTIONS, *SOUNDS):
        named = "".join(decoration([name], Tags.TEXT))
        assert named == ("" if name in UNSAID else f"[{name}] ")
        assert "".join(decoration([name], Tags.EMOJI)) == (EMOTIONS | SOUNDS)[name]
        assert named or not (EMOTIONS | SOUNDS)[name]
        assert decoration([name], Tags.NONE) == ("", "")


def timed(original: Segment) -> list[tuple[float, float]]:
    return [(part.start_s, part.end_s) for part in (*original.words, *original.pieces)]


@given(transcripts(divided=True) | worded(), st.sampled_from(SHOWN))
def test_without_its_decoration_a_text_is_unchanged(original: Transcript, style: Tags) -> None:
    """No word or part changes its time or order."""
    for part in original.segments:
        shown, (front, back) = decorated(part, style), decoration(part.tags, style)
        if not part.text.strip():
            assert shown.text == (f"{front}{back}".strip() if front or back else part.text)
            continue
        assert timed(shown) == timed(part)
        start, end = len(part.text) - len(part.text.lstrip()), len(part.text.rstrip())
        assert shown.text.startswith(f"{part.text[:start]}{front}")
        assert shown.text.endswith(f"{back}{part.text[end:]}")
        assert shown.text[: start + len(front)] + part.text[start:end] + back + part.text[end:] == shown.text
        for before, after in ((part.words, shown.words), (part.pieces, shown.pieces)):
            plain = [one.text for one in before]
            if plain:
                plain[0] = f"{front}{plain[0]}"
                plain[-1] += back
            assert [one.text for one in after] == plain
        same = {name: getattr(part, name) for name in ("text", "words", "pieces", "scores")}
        assert dataclasses.replace(shown, **same) == part


@pytest.mark.parametrize("style", SHOWN)
@pytest.mark.parametrize("times", [Timestamps.NONE, Timestamps.WORD])
def test_colours_stay_with_their_words(style: Tags, times: Timestamps) -> None:
    """On a terminal, words that the model was unsure of are coloured, and the tags before them are not."""
    part = spoken(0.0, 3.0, "so it was", (0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    scores = Score("so ", 0.9), Score("it", 0.1), Score(" was", 0.9)
    shown = tinted_lines(
        [decorated(dataclasses.replace(part, scores=scores, tags=("sad", "music")), style)], "", times
    )
    assert [shown.plain[span.start : span.end] for span in shown.spans if span.style] == ["it"]


@given(st.lists(st.text(" \u3000a你.", min_size=1, max_size=4), min_size=1), st.sampled_from(SHOWN))
@example([" Hello", " there. "], Tags.TEXT)
@example([" ", " \u3000", "a"], Tags.EMOJI)
def test_scores_still_spell_the_text(pieces: list[str], style: Tags) -> None:
    """White space may be at either end. Each character keeps its score, and a tag has probability 1."""
    scores = tuple(Score(piece, index / 100) for index, piece in enumerate(pieces))
    part = segment(0.0, 1.0, "".join(pieces))
    shown = decorated(dataclasses.replace(part, scores=scores, tags=("sad", "music")), style)
    if not part.text.strip():
        assert shown.scores == ()
        return
    assert "".join(score.text for score in shown.scores) == shown.text
    assert all(score.text for score in shown.scores)
    kept = [(sign, score.probability) for score in shown.scores for sign in score.text if score.probability < 1]
    assert kept == [(sign, score.probability) for score in scores for sign in score.text]


@given(worded(), st.sampled_from(Tags), st.sampled_from(Timestamps))
def test_json_has_tags_and_the_text_plain(original: Transcript, style: Tags, times: Timestamps) -> None:
    for format in ("json", "jsonl"):
        write = WRITERS[format]
        assert write(original, Style(times, tags=style)) == write(original, Style(times))
    assert [tuple(row["tags"]) for row in as_dict(original)["segments"]] == [
        part.tags for part in original.segments
    ]


@pytest.mark.parametrize("style", SHOWN)
def test_sounds_come_with_the_first_cue_and_the_emotion_with_the_last(style: Tags) -> None:
    """This holds with and without word times. Start and end of cues do not change."""
    two = spoken(0.0, 9.0, "One is here. Two is there.", *((step, step + 1.0) for step in range(1, 7)))
    part = dataclasses.replace(two, tags=("angry", "music"))
    plain, shown = (make_cues(transcript_of(each)) for each in (part, decorated(part, style)))
    front, back = decoration(part.tags, style)
    assert [cue.text for cue in plain] == ["One is here.", "Two is there."]
    assert [cue.text for cue in shown] == [f"{front}One is here.", f"Two is there.{back}"]
    assert [(cue.start_ms, cue.end_ms) for cue in shown] == [(cue.start_ms, cue.end_ms) for cue in plain]


def transcript_of(part: Segment) -> Transcript:
    return transcript(part, duration_s=part.end_s)


@pytest.mark.parametrize(
    ("format", "names", "emoji"),
    [
        ("txt", "[music] [angry] Yes.\n", "🎼Yes.😡\n"),
        ("tsv", "start\tend\ttext\n0\t1000\t[music] [angry] Yes.\n", "start\tend\ttext\n0\t1000\t🎼Yes.😡\n"),
        ("srt", "00:00:01,000\n[music] [angry] Yes.\n", "00:00:01,000\n🎼Yes.😡\n"),
        ("vtt", "00:00:01.000\n[music] [angry] Yes.\n", "00:00:01.000\n🎼Yes.😡\n"),
        ("md", "- **0:00** \\[music\\] \\[angry\\] Yes.\n", "- **0:00** 🎼Yes.😡\n"),
    ],
)  # fmt: skip
def test_formats_show_tags_on_request(format: str, names: str, emoji: str) -> None:
    original = transcript_of(dataclasses.replace(segment(0.0, 1.0, "Yes."), tags=("angry", "music")))
    write = WRITERS[format]
    assert names in write(original, Style(tags=Tags.TEXT))
    assert emoji in write(original, Style(tags=Tags.EMOJI))
    assert write(original, Style(tags=Tags.NONE)) == write(original)
    assert "angry" not in write(original)
