"""``--instruction`` and ``--dialogue``: what they change, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.expected import recognizer
from support.native import LIBRARY, WITHOUT
from support.running import invoke

import funasr_cli
from funasr_cli import demo
from funasr_cli.families.fun_asr_nano.prompt import prompt_texts, prompt_token_ids
from funasr_cli.options import INT8, MLX, NATIVE, TranscribeOptions

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
CLIPS = demo.clips()
BASE = ("transcribe", "-m", "demo", CLIPS[0].path)
ROLES = ("system", "user", "assistant", "user", "assistant")
TURNS = tuple(zip(ROLES, ("Be brief.", "Who?\n", "Ann.", "语音转写：", " It's 12.\n"), strict=True))


def write_turns(path: Path, turns: Any = TURNS) -> Path:
    content = [{"role": role, "content": text} for role, text in turns]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_prompt(tmp_path: Path) -> None:
    """It is printed word for word, and is the one that is encoded."""
    file = write_turns(tmp_path / "turns.json")
    result = invoke(*BASE, "--show-prompt", "--quiet", "--instruction", "Write it down:", "--dialogue", file)
    options, model = TranscribeOptions(instruction="Write it down:", dialogue=TURNS), recognizer("demo").model
    before, after = prompt_texts(options, model.config.prompt)
    counts = map(len, prompt_token_ids(options, model.config.prompt, model.tokenizer))
    assert "Be brief." in before
    assert before.endswith("It's 12.\n<|im_end|><|im_start|>user\nWrite it down:")
    assert result.exit_code == 0, result
    assert result.stderr.startswith("prompt, {} tokens before the audio and {} after it:\n".format(*counts))
    assert f"{before}<audio>{after}" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", [MLX, pytest.param(NATIVE, marks=needs_library)])
def test_they_change_the_text_and_batches_do_not(engine: str) -> None:
    """All rows of a batch share the prompt up to the audio, which is computed once; in float32 and in int8."""
    asr = funasr_cli.load("demo", {MLX: "float32", NATIVE: INT8}[engine], engine=engine)
    clips, found = [clip.path for clip in CLIPS[:4]], []
    for options in ({"instruction": "Listen, and write:"}, {"dialogue": TURNS}, {}):
        alone = [asr.transcribe(clip, **options).text for clip in clips]
        together = asr.transcribe_batch(clips, batch_size=4, **options)
        assert [transcript.text for transcript in together] == alone
        found.append(tuple(alone))
    assert found[1] != found[2]  # a short instruction changes no text of this model


@pytest.mark.slow
def test_an_instruction_has_no_second_opinion() -> None:
    """Its text need not be a transcript. The model was not trained with this one, and writes something else."""
    results = [
        recognizer("demo").transcribe(CLIPS[1].path, instruction=text) for text in ("把语音翻译成英文：", None)
    ]
    assert [[each.disagreement is None for each in one.segments] for one in results] == [[True], [False]]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--lang en", "--lang"), ("--hotword a", "--hotword"), ("--itn", "--itn"), ("--no-itn", "--no-itn"),
        ("--hotwords-file words.txt", "--hotwords-file"),
        ("--hotword a --compare-hotwords", "--compare-hotwords"),
    ],
)  # fmt: skip
def test_what_an_instruction_replaces_is_refused(options: str, named: str) -> None:
    invoke(*BASE, "--instruction", "Translate:", *options.split()).assert_error(2, "option-idle", "--instruction")


@pytest.mark.slow
def test_settings_that_an_instruction_replaces_are_ignored() -> None:
    settings = {"FUNASR_LANG": "zh", "FUNASR_ITN": "0", "FUNASR_HOTWORDS_FILE": "nowhere.txt"}
    found = invoke(*BASE, "--instruction", "Listen, and write:", "--show-prompt", env=settings)
    assert (found.exit_code, "Listen, and write:<audio>" in found.stderr) == (0, True)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("file-unreadable", b"{"), ("file-unreadable", b"\xff\xfe"), ("file-unreadable", b"[]"),
        ("file-unreadable", b'{"role": "user", "content": "a"}'), ("file-unreadable", b'["user"]'),
        ("file-unreadable", b'[{"role": "user", "content": "a", "audio": "b.wav"}]'),
        ("file-unreadable", b"[" * 100_000), ("file-unreadable", b"9" * 10_000), ("file-unreadable", None),
        ("prompt-too-long", b" " * (1 << 23)),
        ("option-value", b'[{"role": "user", "content": "a"}]'),
        ("option-value", b'[{"role": 3, "content": "a"}]'),
    ],
)  # fmt: skip
def test_files_that_are_no_dialogue_are_refused(code: str, content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "turns.json"
    if content is not None:
        file.write_bytes(content)
    invoke(*BASE, "--dialogue", file).assert_error(2, code)


def test_an_empty_instruction_is_refused() -> None:
    invoke(*BASE, "--instruction", "").assert_error(2, "option-value", "--instruction")


def test_control_tokens_and_long_texts_are_refused(tmp_path: Path) -> None:
    invoke(*BASE, "--instruction", "a<|im_end|>").assert_error(2, "prompt-text", "<|im_end|>")
    invoke(*BASE, "--instruction", "x7 " * 9000).assert_error(2, "prompt-too-long")
    file = write_turns(tmp_path / "turns.json", [("user", "x7 " * 9000), ("assistant", "b")])
    invoke(*BASE, "--dialogue", file).assert_error(2, "prompt-too-long")


def test_another_family_refuses_them(small_sense_voice: Path, tmp_path: Path) -> None:
    base = ("transcribe", "-m", small_sense_voice, CLIPS[0].path)
    invoke(*base, "--instruction", "Listen:").assert_error(2, "option-unsupported", "--instruction")
    file = write_turns(tmp_path / "turns.json")
    invoke(*base, "--dialogue", file).assert_error(2, "option-unsupported", "--dialogue")


@pytest.mark.slow
def test_resuming_notices_another_dialogue(tmp_path: Path) -> None:
    base = (*BASE, "-o", tmp_path / "out", "--resume", "--dialogue")
    for turns, made in ((TURNS, 1), (TURNS, 0), (TURNS[1:], 1)):
        file = write_turns(tmp_path / "turns.json", turns)
        assert invoke(*base, file).stderr.count("wrote ") == made
