"""Final text, text during decoding, and the decoder's probability for each piece."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch import generate

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.decoding.stopping import without_loop
from funasr_cli.decoding.text import (
    UNFINISHED,
    TextStream,
    clean_text,
    settled_text,
    settled_written_text,
    thinking,
    written_text,
)
from funasr_cli.options import DEFAULTS
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Score

Settle = Callable[[str], str]
FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "<thi", "nk>", "<", "/sil", "/s", "il", "/", " ", "  ", "\n", "\t", "\u3000", "a",
     "你", "😀", "\ufffd", "e\u0301", "<|im_end|>"]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)
BYTES = st.lists(TEXTS.map(str.encode) | st.binary(max_size=4), max_size=8).map(b"".join)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", ""), ("  a \n\t b  ", "a b"), ("a/silb", "a b"), ("/sil/sil", ""), ("a\u3000b\u00a0c", "a b c"),
        ("<think>x</think>a", "a"), ("a<think>x\ny</think>b", "ab"), ("a<think>never closed", "a"),
        ("<think></think>\n\na", "a"), ("<think>a<think>b</think>c", "c"), ("a</think>b", "a</think>b"),
        ("/s<think>x</think>il", ""), ("a\ufffdb", "a\ufffdb"),
    ],
)  # fmt: skip
def test_clean_text(raw: str, text: str) -> None:
    assert clean_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", ""), (" a \n\n  b/sil ", "a \n\n  b/sil"), ("<think>x</think>\n\na", "a"),
        (" \n<think>\n</think>a", "a"),
        ("<think>never closed", ""), ("<think>a<think>b</think>c</think>d", "c</think>d"), ("<thin", "<thin"),
        ("a <think>b</think> c", "a <think>b</think> c"), ("a</think>b", "a</think>b"),
    ],
)  # fmt: skip
def test_text_of_a_language_model(raw: str, text: str) -> None:
    """Its lines are kept, and only a block at the beginning is removed, up to the first end."""
    assert written_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "blocks"),
    [("a", ""), ("<think> x </think>a<think>y", "x\ny"), ("<think>\n\n</think>\n\na", ""), ("</think>a", "")],
)
def test_thinking(raw: str, blocks: str) -> None:
    assert thinking(raw) == blocks


@st.composite
def cut_anywhere(draw: st.DrawFn) -> list[bytes]:
    """Draw any bytes, split anywhere."""
    content, chunks = draw(BYTES), []
    while content:
        size = draw(st.integers(1, min(6, len(content))))
        chunks.append(content[:size])
        content = content[size:]
    return chunks


def byte_stream(chunks: Sequence[bytes], earlier: str = "", settle: Settle = settled_text) -> TextStream:
    """Return a stream whose n-th token is the n-th of these chunks."""
    return TextStream(
        lambda ids: b"".join(chunks[index] for index in ids).decode(errors="replace"), earlier, settle
    )


def settled_by_step(stream: TextStream, tokens: int) -> list[str]:
    """Return the settled text after each of the first tokens."""
    steps = []
    for token_id in range(tokens):
        assert stream.push(token_id) is None
        steps.append(stream.settled)
    return steps


@pytest.mark.parametrize(("settle", "final"), [(settled_text, clean_text), (settled_written_text, written_text)])
@given(chunks=cut_anywhere())
def test_settled_text_grows_to_the_final_text(settle: Settle, final: Settle, chunks: list[bytes]) -> None:
    """Settled text is never changed, and is always a prefix of the final text."""
    stream = byte_stream(chunks, settle=settle)
    steps = settled_by_step(stream, len(chunks))
    assert stream.raw == b"".join(chunks).decode(errors="replace")
    assert stream.token_ids == list(range(len(chunks)))
    for earlier, later in pairwise(["", *steps, final(stream.raw)]):
        assert later.startswith(earlier)


def test_characters_appear_as_soon_as_they_are_complete() -> None:
    chunks = [bytes([byte]) for byte in "a你b".encode()]
    assert settled_by_step(byte_stream(chunks), 5) == ["a", "a", "a", "a你", "a你b"]


def test_possible_marks_are_held_back() -> None:
    """Text that may become `<think>` or `/sil` is not shown until it no longer can."""
    chunks = [b"a <t", b"h", b"e /s", b"i", b"de"]
    assert settled_by_step(byte_stream(chunks), 5) == ["a", "a", "a <the", "a <the", "a <the /side"]


def test_bytes_that_never_become_a_character_are_not_settled() -> None:
    """They appear only in the final text, as the replacement character."""
    stream = byte_stream([b"a", b"\xe4", b"\xbd"])
    assert settled_by_step(stream, 3) == ["a", "a", "a"]
    assert clean_text(stream.raw) == f"a{UNFINISHED}"


# --- probabilities of pieces ---

CLIPS = demo.clips()
PROBABILITIES = st.floats(1e-6, 1.0)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return funasr_cli.load("demo")


def stream_of(tokens: Sequence[tuple[bytes, float]], earlier: str = "") -> TextStream:
    """Return a stream with tokens of these bytes and probabilities."""
    vocabulary = list(dict.fromkeys(spelling for spelling, _ in tokens))
    stream = byte_stream(vocabulary, earlier)
    for spelling, probability in tokens:
        stream.push(vocabulary.index(spelling), math.log(probability))
    return stream


def scored(tokens: Sequence[tuple[bytes, float]], earlier: str = "") -> list[tuple[str, float]]:
    """Return pieces of the final text with their probabilities."""
    stream = stream_of(tokens, earlier)
    return [(score.text, pytest.approx(score.probability)) for score in stream.scores(clean_text(stream.raw))]


@st.composite
def token_lists(draw: st.DrawFn) -> list[tuple[bytes, float]]:
    return [(chunk, draw(PROBABILITIES)) for chunk in draw(cut_anywhere())]


def assert_spell(scores: tuple[Score, ...], text: str) -> None:
    assert "".join(score.text for score in scores) == text
    assert all(score.text for score in scores)
    assert all(0 < score.probability <= 1 for score in scores)


@given(token_lists(), TEXTS)
def test_pieces_spell_the_text(tokens: list[tuple[bytes, float]], earlier: str) -> None:
    stream = stream_of(tokens, earlier)
    text = clean_text(stream.raw)
    scores = stream.scores(text)
    assert_spell(scores, text)
    assert {score.probability for score in scores} <= {math.exp(math.log(p)) for _, p in tokens} | {1.0}


@given(token_lists(), st.integers(1, 4), PROBABILITIES)
def test_pieces_spell_the_rest_of_a_loop(tokens: list[tuple[bytes, float]], period: int, low: float) -> None:
    """Removed text is in no piece."""
    round_of = [(f"{index} 你".encode(), low) for index in range(period)]
    stream = stream_of([*tokens, *round_of * 20])
    text = clean_text(without_loop(stream))
    assert_spell(stream.scores(text), text)


YOU, FACE = "你".encode(), "😀".encode()


@pytest.mark.parametrize(
    ("tokens", "earlier", "expected"),
    [
        ([], "", []),
        ([(b"Turn", 0.9), (b" it", 0.5), (b".", 1.0)], "", [("Turn", 0.9), (" it", 0.5), (".", 1.0)]),
        # A character has the lowest probability of its tokens.
        ([(YOU[:1], 0.9), (YOU[1:], 0.8), (FACE[:2], 0.3), (FACE[2:], 0.6)], "", [("你", 0.8), ("😀", 0.3)]),
        ([(b"a", 0.9), (b"\xe4", 0.2), (b"\xbd", 0.4)], "", [("a", 0.9), ("\ufffd", 0.2)]),  # never a character
        # White space belongs to the following piece, and a silence mark counts as white space.
        ([(b" ", 0.1), (b"a", 0.9), (b" ", 0.8), (b"\n", 0.7), (b"b", 0.9)], "", [("a", 0.1), (" b", 0.7)]),
        ([(b"a", 0.9), (b"/s", 0.5), (b"il", 0.6), (b"b", 0.7)], "", [("a", 0.9), (" b", 0.5)]),
        ([(b"<think>", 0.9), (b"so", 0.1), (b"</think>", 0.9), (b"\n\n", 0.8), (b"a", 0.7)], "", [("a", 0.7)]),
        (
            [(b" ", 0.1), (b"seven", 0.4)],
            "It is",
            [("It is", 1.0), (" seven", 0.1)],
        ),  # the earlier text is certain
        ([(b"seven", 0.4)], "It is ", [("It is", 1.0), (" seven", 0.4)]),
        ([], "It is ", [("It is", 1.0)]),
    ],
)
def test_pieces(tokens: list[tuple[bytes, float]], earlier: str, expected: list[tuple[str, float]]) -> None:
    assert scored(tokens, earlier) == expected


def test_a_token_that_spells_nothing_changes_no_probability() -> None:
    """Such as a time of Whisper. A byte of a character does, even if the text looks the same."""
    a, b, c = YOU[:1], YOU[1:2], YOU[2:]
    assert scored([(b"you,", 0.9), (b"", 0.05), (b" ask", 0.8)]) == [("you,", 0.9), (" ask", 0.8)]
    assert scored([(b"", 0.05), (a, 0.9), (b"", 0.02), (b, 0.3), (c, 0.8)]) == [("你", 0.3)]


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.path.stem)
def test_scores_of_the_demo_model(recognizer: Recognizer, clip: demo.DemoClip) -> None:
    """They are the decoder's own values: the mean over all tokens equals that over pieces and stop token."""
    (segment,) = recognizer.transcribe(clip.path, vad=False, confidence=True).segments
    assert_spell(segment.scores, segment.text)
    samples = load_audio(clip.path, recognizer.sample_rate_hz).samples
    prompts = recognizer.model.prompts(recognizer.model.encoded([recognizer.model.features(samples)]), DEFAULTS)
    llm, stops = recognizer.model.network.llm, recognizer.model.config.stop_token_ids
    (tokens,) = generate(llm, prompts, stops, 100, make_sampler(DEFAULTS))
    *written, stop = tokens
    assert stop.token_id in stops
    assert segment.tokens == len(tokens)
    assert segment.mean_logprob == pytest.approx(sum(token.logprob for token in tokens) / len(tokens), abs=1e-6)
    expected = TextStream(recognizer.model.spell)
    for token in written:
        expected.push(token.token_id, token.logprob)
    assert segment.scores == tuple(
        Score(score.text, pytest.approx(score.probability, abs=1e-5)) for score in expected.scores(segment.text)
    )
    if len(segment.scores) == len(written):  # each token has settled some text
        logprobs = [math.log(score.probability) for score in segment.scores] + [stop.logprob]
        assert segment.mean_logprob == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-5)


def test_scores_only_on_request(recognizer: Recognizer) -> None:
    with_scores, without = (recognizer.transcribe(CLIPS[0].path, confidence=wanted) for wanted in (True, False))
    assert [segment.scores for segment in without.segments] == [()]
    assert [replace(segment, scores=()) for segment in with_scores.segments] == list(without.segments)
