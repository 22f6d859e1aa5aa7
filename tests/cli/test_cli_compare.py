"""``--compare-hotwords``: what hotwords change, on stdout. Also ``--show-prompt`` and ``--prev-text``.

The demo model was not trained with hotwords. It reacts to them, though wrongly, which is enough to see
differences.
"""

import json
import os
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.expected import made_up, recognizer, summary
from support.running import funasr, invoke
from support.terminal import EAGER, frames, on_terminal
from support.transcripts import segment, transcript

from funasr_cli import demo
from funasr_cli.cli.compare import Part, count, matching_parts
from funasr_cli.families.fun_asr_nano.prompt import prompt_texts, prompt_token_ids
from funasr_cli.options import LONG_PROMPT_TOKENS, MAX_PROMPT_TOKENS, TranscribeOptions
from funasr_cli.transcript import Segment, Transcript, join_texts

CLIPS = demo.clips()
EN, ZH = CLIPS[0], CLIPS[1]
SAME = CLIPS[4]  # no hotword changes its text
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
CONTEXT = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n**上下文信息：**\n\n\n"
    "热词列表：[{words}]\n"
)


def text_with(clip: demo.DemoClip, *hotwords: str, dtype: str = "auto") -> str:
    return recognizer("demo", dtype).transcribe(clip.path, hotwords=hotwords).text


@pytest.mark.slow
def test_differences() -> None:
    """Differences are printed per input, followed by the number of times each hotword was written."""
    changed = text_with(EN, "seven", "meeting")
    assert changed != EN.written
    assert text_with(SAME, "seven", "meeting") == SAME.written
    arguments = ("--compare-hotwords", "--hotword", "seven", "--hotword", "meeting")
    result = invoke("transcribe", "-m", "demo", EN.path, SAME.path, *arguments)
    before, after = (text.casefold().count("meeting") for text in (EN.written, changed))
    assert before == 1
    assert result.stdout == (
        f"{EN.path}: 1 of 1 segments differ\n"
        "  0:00-0:03\n"
        f"  - {EN.written}\n"
        f"  + {changed}\n"
        f"{SAME.path}: 0 of 1 segments differ\n"
        "seven: appears 0 times without hotwords, 0 times with them\n"
        f"meeting: appears once without hotwords, {after} times with them\n"
    )
    assert (result.exit_code, result.stderr) == (0, made_up(EN.path, "0.1-2.7") + summary("0:04", doubtful=1))


def test_differences_on_a_terminal() -> None:
    """Words that only one of the texts contains are coloured; without colours, nothing is."""
    changed = text_with(ZH, "Kubernetes", dtype="float32")
    assert changed == "这个6月83。"
    hotwords = ("--compare-hotwords", "--hotword", "Kubernetes")
    arguments = ("transcribe", "-m", "demo", "--dtype", "float32", ZH.path, *hotwords)
    _, shown, printed = on_terminal(*arguments, "--quiet")
    assert printed == ""
    assert "  - 这个\x1b[31m要6837块钱。\x1b[0m\r\n" in shown
    assert "  + 这个\x1b[32m6月83。\x1b[0m\r\n" in shown
    assert "\x1b[3" not in on_terminal(*arguments, "--quiet", NO_COLOR="1")[1]


@pytest.mark.parametrize(
    ("word", "text", "times"),
    [
        ("AI", "An AI said: ai!", 2), ("AI", "He said it again.", 0), ("AI", "用AI写", 1),
        ("C++", "C++ and c++, not C", 2), ("房", "滨海新区有房，房子", 2), ("New York", "new york, newyork", 1),
        ("3", "13 3 33", 1), ("straße", "STRASSE", 1),
    ],
)  # fmt: skip
def test_what_counts_as_a_hotword_written(word: str, text: str, times: int) -> None:
    assert count(word, text) == times


def test_both_runs_show_their_progress() -> None:
    arguments = ("transcribe", "-m", "demo", SAME.path, "--compare-hotwords", "--hotword", "seven")
    _, shown, _ = on_terminal(*arguments, command=EAGER)
    lines = frames(shown)
    for task in ("with", "without"):
        assert any(re.match(rf"{task} hotwords +━+ 0:02 of 0:02, ", line) for line in lines), lines


@pytest.mark.slow
def test_a_failed_input(tmp_path: Path) -> None:
    """It is reported once, and the other inputs are still compared."""
    missing = tmp_path / "missing.wav"
    result = invoke("transcribe", "-m", "demo", missing, SAME.path, "--compare-hotwords", "--hotword", "seven")
    assert result.stdout.startswith(f"{SAME.path}: 0 of 1 segments differ\nseven: ")
    assert (result.exit_code, [code for code, _ in result.errors]) == (1, ["audio-missing"])
    assert result.stderr.endswith(f"\n1 of 2 inputs failed; {summary('0:02')}")


@pytest.mark.slow
def test_gaps_are_reported_once(small_model: Path, short_wav: Path) -> None:
    """Missing parts are reported as without a comparison, and affect the exit code."""
    arguments = ("transcribe", "-m", small_model, short_wav, "--max-tokens", 3, "--hotword", "a")
    plain, compared = invoke(*arguments), invoke(*arguments, "--compare-hotwords")
    assert "cut short after 3 tokens" in compared.stderr
    assert (compared.stderr, compared.exit_code) == (plain.stderr, 1)


def test_a_file_that_disappears_between_the_two_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A failure in the second pass counts as much as one in the first."""
    clip = tmp_path / "a.flac"
    clip.write_bytes(EN.path.read_bytes())
    from funasr_cli.cli import compare

    transcribe, passes = compare._transcribe, []

    def then_remove(*arguments: object) -> object:
        done = transcribe(*arguments)  # type: ignore[arg-type]
        passes.append(clip.unlink(missing_ok=True))
        return done

    monkeypatch.setattr(compare, "_transcribe", then_remove)
    result = invoke("transcribe", "-m", "demo", clip, "--compare-hotwords", "--hotword", "seven")
    assert len(passes) == 2
    assert result.stdout.startswith("seven: appears 0 times ")
    assert (result.exit_code, [code for code, _ in result.errors]) == (1, ["audio-missing"])


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("-", tmp_path / "pipe"):
        result = funasr("transcribe", "-m", "nowhere", "--compare-hotwords", path, "--hotword", "a", input=b"")
        result.assert_error(2, "input-once", f"{path}: ")


def pieces(*ends_s: float, name: str = "") -> list[Segment]:
    """Return consecutive segments whose texts give their positions."""
    return [segment(*span_s, f"{name}{span_s[1]:g}") for span_s in pairwise((0.0, *ends_s))]


def of(*segments: Segment) -> Transcript:
    return transcript(*segments, duration_s=100.0)


@pytest.mark.parametrize(
    ("without", "with_hotwords", "parts"),
    [
        ((5, 9), (5, 9), [Part(0.0, 5, "a5", "b5"), Part(5, 9, "a9", "b9")]),
        # one was split by a retry: halves and quarters correspond to the whole
        ((4, 8, 12), (4, 5, 6, 8, 12), [
            Part(0.0, 4, "a4", "b4"), Part(4, 8, "a8", "b5 b6 b8"), Part(8, 12, "a12", "b12")
        ]),
        ((6, 12), (4, 12), [Part(0.0, 12, "a6 a12", "b4 b12")]),
        # only one transcript has it
        ((), (), []),
        ((), (3,), [Part(0.0, 3, "", "b3")]),
        ((5, 9), (5,), [Part(0.0, 5, "a5", "b5"), Part(5, 9, "a9", "")]),
    ],
)  # fmt: skip
def test_parts(without: tuple[float, ...], with_hotwords: tuple[float, ...], parts: list[Part]) -> None:
    assert list(matching_parts(of(*pieces(*without, name="a")), of(*pieces(*with_hotwords, name="b")))) == parts


CUTS = st.lists(st.integers(1, 40), max_size=8, unique=True).map(sorted)


@pytest.mark.slow
@given(CUTS, CUTS, CUTS)
def test_parts_hold_everything_once(shared: list[int], without: list[int], with_hotwords: list[int]) -> None:
    """Every segment is in exactly one part. Parts are ordered and end where both transcripts have an end."""
    sides = [of(*pieces(*map(float, sorted({*shared, *cuts, 41})), name="x")) for cuts in (without, with_hotwords)]
    parts = list(matching_parts(*sides))
    assert join_texts(part.without for part in parts) == sides[0].text
    assert join_texts(part.with_hotwords for part in parts) == sides[1].text
    ends = [{piece.end_s for piece in side.segments} for side in sides]
    assert [part.end_s for part in parts] == sorted(ends[0] & ends[1])
    assert [part.start_s for part in parts] == [0.0, *(part.end_s for part in parts[:-1])]


@pytest.mark.slow
def test_show_prompt() -> None:
    """The prompt is printed literally, even with --quiet, and is the one that is encoded."""
    words = ("Kubernetes", "滨海 [b]")
    arguments = ("--lang", "English", "--no-itn", "--hotword", words[0], "--hotword", words[1])
    result = invoke("transcribe", "-m", "demo", EN.path, "--show-prompt", "--quiet", *arguments)
    asked, config = TranscribeOptions(language="en", itn=False, hotwords=words), recognizer("demo").model.config
    tokenizer = recognizer("demo").model.tokenizer
    before, after = prompt_token_ids(asked, config.prompt, tokenizer)
    heading = f"prompt, {len(before)} tokens before the audio and {len(after)} after it:\n"
    question = f"{CONTEXT.format(words=', '.join(words))}语音转写成英文，不进行文本规整："
    assert result.stderr.startswith(f"{heading}{SYSTEM}{question}<audio>{ANSWER}\n")
    spelled = [tokenizer.decode(ids, skip_special_tokens=False) for ids in (before, after)]
    assert spelled == [f"{SYSTEM}{question}", ANSWER] == list(prompt_texts(asked, config.prompt))


def test_show_prompt_with_an_earlier_text() -> None:
    """Only the first segment of a recording gets the earlier text in its prompt."""
    result = invoke("transcribe", "-m", "demo", EN.path, "--show-prompt", "--quiet", "--prev-text", "It is")
    options, model = TranscribeOptions(prev_text="It is"), recognizer("demo").model
    counts = [
        tuple(map(len, prompt_token_ids(options, model.config.prompt, model.tokenizer, first=first)))
        for first in (True, False)
    ]
    assert counts[0][1] > counts[1][1]
    first, others = result.stderr.split("prompt of later segments, ")
    assert first.endswith(f"{counts[0][1]} after it:\n{SYSTEM}语音转写：<audio>{ANSWER}It is\n")
    assert others.endswith(f"{counts[1][1]} after it:\n{SYSTEM}语音转写：<audio>{ANSWER}\n")


@pytest.mark.slow
def test_earlier_text(tmp_path: Path) -> None:
    """A recording's first segment continues the earlier text. As in upstream, that text is part of the result."""
    samples, earlier = soundfile.read(EN.path)[0], "I think that"
    soundfile.write(tmp_path / "twice.wav", np.concatenate([samples, np.zeros(32000), samples]), 16000)
    base = ("transcribe", "-m", "demo", tmp_path / "twice.wav", "-f", "json")
    plain, continued = (
        [segment["text"] for segment in json.loads(invoke(*base, *options).stdout)["segments"]]
        for options in ((), ("--prev-text", earlier))
    )
    assert continued[0].startswith(earlier)
    assert continued[0] not in (earlier, f"{earlier}{plain[0]}", f"{earlier} {plain[0]}")
    assert (len(continued), continued[1]) == (2, plain[1])


# --- prompts that are too long are refused before any computation; long ones that fit work ---

LETTERS = random.Random(0)
WORDS = ["".join(LETTERS.choices("abcdefghijklmnopqrstuvwxyz", k=80)) for _ in range(200)]
BASE = ("transcribe", "-m", "demo", EN.path)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--compare-hotwords",), ("--batch-size", 16)])
@pytest.mark.parametrize("content", ["\n".join(WORDS), "滨海\n" * 3, "a" * 10**6], ids=["words", "few", "1 MB"])
def test_hotwords_from_a_file(content: str, more: tuple, tmp_path: Path) -> None:
    """200 words of 80 characters made 14,000 tokens, took 10 GB, and the process was killed."""
    (tmp_path / "words.txt").write_text(content, encoding="utf-8")
    result = invoke(*BASE, "--hotwords-file", tmp_path / "words.txt", *more)
    if len(content) < 100:
        assert result.exit_code == 0, result
    else:
        result.assert_error(2, "prompt-too-long", str(MAX_PROMPT_TOKENS))


def test_an_endless_file() -> None:
    invoke(*BASE, "--hotwords-file", "/dev/zero").assert_error(2, "prompt-too-long", "/dev/zero")


def test_an_earlier_text_that_is_too_long() -> None:
    invoke(*BASE, "--prev-text", " ".join(WORDS)).assert_error(2, "prompt-too-long", str(MAX_PROMPT_TOKENS))


@pytest.mark.slow
def test_many_short_hotwords_are_allowed(tmp_path: Path) -> None:
    """The limit is on tokens, not on words or characters."""
    (tmp_path / "words.txt").write_text("\n".join(f"w{number}" for number in range(201)), encoding="utf-8")
    result = invoke(*BASE, "--hotwords-file", tmp_path / "words.txt", "--batch-size", 16)
    assert result.exit_code == 0, result


@pytest.mark.slow
@pytest.mark.parametrize("words", [5, 500])
def test_a_long_prompt_is_warned_about(words: int) -> None:
    result = invoke(*BASE, "--prev-text", " ".join(f"w{number}" for number in range(words)), "--max-tokens", 1)
    counted = [
        int(count) for count in re.findall(r"^warning: a prompt of (\d+) tokens", result.stderr, re.MULTILINE)
    ]
    assert [count > LONG_PROMPT_TOKENS for count in counted] == [True] * (words == 500)
