"""``--confidence``: coloured words on a terminal, scores in JSON; refused where neither applies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.running import invoke
from support.terminal import account, on_terminal
from support.transcripts import segment, texts, worded

from funasr_cli import demo
from funasr_cli.characters import one_line, printable
from funasr_cli.cli.output import LEGEND, scored_words, tinted_lines
from funasr_cli.formats import as_lines
from funasr_cli.options import Timestamps
from funasr_cli.transcript import Score, Segment, Transcript

CLIPS = demo.clips()
UNSURE, DOUBTFUL = "\x1b[33m", "\x1b[4;31m"


def segment_of(*pieces: tuple[str, float]) -> Segment:
    scores = tuple(Score(*piece) for piece in pieces)
    written = segment(0.0, 1.0, "".join(text for text, _ in pieces))
    return Segment(**{**vars(written), "scores": scores})


def scored(original: Segment) -> list[tuple[str, float]]:
    """Return a segment's words with their probabilities."""
    probabilities = [score.probability for score in original.scores for _ in printable(score.text)]
    return list(scored_words(printable(original.text), probabilities))


def styles(*pieces: tuple[str, float]) -> list[tuple[str, str]]:
    """Return the coloured words of a segment with their colours."""
    lines = tinted_lines([segment_of(*pieces)])
    return [(lines.plain[span.start : span.end], str(span.style)) for span in lines.spans]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([], []),
        ([("one", 0.9)], [("one", 0.9)]),
        (
            [("Ku", 0.9), ("be", 0.4), ("rnetes", 1.0), (" is", 0.8)],
            [("Kubernetes", 0.4), (" ", 0.8), ("is", 0.8)],
        ),
        ([("a ", 0.9), ("b", 0.7)], [("a", 0.9), (" ", 0.9), ("b", 0.7)]),
        ([("你好", 0.6), ("世", 0.9)], [("你", 0.6), ("好", 0.6), ("世", 0.9)]),
        ([("要", 0.9), ("68", 0.7), ("37", 0.3), ("块", 0.8)], [("要", 0.9), ("6837", 0.3), ("块", 0.8)]),
        ([("好，", 0.9), ("OK", 0.5), ("。", 1.0)], [("好", 0.9), ("，OK。", 0.5)]),
        ([("カ", 0.3), ("タ", 0.9), ("漢", 0.8)], [("カ", 0.3), ("タ", 0.9), ("漢", 0.8)]),
        ([("안녕", 0.3), (" 하", 0.9)], [("안녕", 0.3), (" ", 0.9), ("하", 0.9)]),
    ],
)  # fmt: skip
def test_words(pieces: list[tuple[str, float]], words: list[tuple[str, float]]) -> None:
    assert scored(segment_of(*pieces)) == words


def test_colours() -> None:
    """Words below 0.5 and below 0.8 are coloured, at the limits not. White space has no colour."""
    assert styles(("a", 0.49), (" b", 0.5), (" c", 0.79), (" d", 0.8), (" e", 1.0)) == [
        ("a", "red underline"), ("b", "yellow"), ("c", "yellow")
    ]  # fmt: skip


@pytest.mark.slow
@given(worded(), st.sampled_from(list(Timestamps)))
def test_colours_change_no_times(original: Transcript, times: Timestamps) -> None:
    assert tinted_lines(original.segments, "a: ", times).plain == as_lines(original.segments, "a: ", times)


@pytest.mark.slow
@given(
    st.lists(st.lists(st.tuples(texts, st.floats(0.0, 1.0)), max_size=4), max_size=3), st.sampled_from(["", "a: "])
)
def test_nothing_but_colours_differs(segments: list[list[tuple[str, float]]], prefix: str) -> None:
    """The rest of the output is unchanged, for any text with control characters and white space."""
    original = [segment_of(*pieces) for pieces in segments]
    assert tinted_lines(original, prefix).plain == as_lines(original, prefix)
    for one in original:
        assert one_line("".join(word for word, _ in scored(one))) == one_line(one.text)


def test_words_on_a_terminal() -> None:
    """The line contains exactly these colour codes and no others."""
    clip = CLIPS[3]  # "Sarah and Emma are at the hospital.": the model is not sure of the names
    coloured = f"{UNSURE}Sarah\x1b[0m and {DOUBTFUL}Emma\x1b[0m are at the hospital."
    for options in ((), ("--stream",)):
        code, shown, _ = on_terminal("transcribe", "-m", "demo", clip.path, "--confidence", *options)
        assert code == 0
        assert coloured in shown
        assert account(shown)[0] == [LEGEND, clip.written]
    assert coloured not in on_terminal("transcribe", "-m", "demo", clip.path)[1]


def test_refused_where_it_would_not_be_shown() -> None:
    base = ("transcribe", "-m", "demo", CLIPS[0].path, "--confidence")
    invoke(*base).assert_error(2, "option-idle", "--confidence")
    for options, env, both in ((("-f", "srt"), {}, True), ((), {"NO_COLOR": "1"}, True), ((), {}, False)):
        code, shown, printed = on_terminal(*base, *options, stdout_too=both, **env)
        assert (code, printed, "error[option-idle]: --confidence" in shown) == (2, "", True)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_scores_in_json(format: str) -> None:
    """The scores' texts concatenate to the segment's text. Without the option there are no scores."""
    base = ("transcribe", "-m", "demo", CLIPS[0].path, "-f", format)
    (scored,) = json.loads(invoke(*base, "--confidence").stdout)["segments"]
    assert "".join(score["text"] for score in scored["scores"]) == scored["text"] == CLIPS[0].written
    assert all(0 < score["probability"] <= 1 for score in scored["scores"])
    assert len(scored["scores"]) > 5
    (plain,) = json.loads(invoke(*base).stdout)["segments"]
    assert plain["scores"] == []
    assert {**plain, "scores": None} == {**scored, "scores": None}
