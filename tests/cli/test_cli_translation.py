"""``--translate`` with a chat model that was taught the demo clips' sentences: files, failures, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import running
from support.native import LIBRARY
from support.running import Result, invoke
from support.small import convert
from support.speaking import SAID, SpeakingModel
from support.translating import LOOPING, SILENT, taught

import funasr_cli
from funasr_cli import demo
from funasr_cli.capabilities import Capabilities
from funasr_cli.families.load import load_model, load_text
from funasr_cli.text_generator import TextGenerator
from funasr_cli.transcript import Translation

CLIPS = [clip.path for clip in demo.clips()]
WRITTEN = [clip.written for clip in demo.clips()]
ZH = demo.clips()[1]  # 这个要6837块钱。
ENGLISH, GERMAN = taught("en"), taught("de")
NONE = Capabilities(("zh", "en"))
OWN = replace(NONE, translation=True)  # of a speech model that translates


def transcribe(*arguments: Any, **env: str) -> Result:
    return invoke("transcribe", "-m", "demo", *arguments, env=env)


def cues(srt: str) -> list[str]:
    """Return the text of each cue of subtitles, without its number and times."""
    return ["\n".join(block.splitlines()[2:]) for block in srt.split("\n\n")]


def times(srt: str) -> list[str]:
    return [line for line in srt.splitlines() if " --> " in line]


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SpeakingModel]:
    """A function that puts a model with a fixed answer in place of the demo model."""

    def use(text: str, able: Capabilities = NONE, **more: Any) -> SpeakingModel:
        model = SpeakingModel(capabilities=able, result=replace(SAID, text=text, language=None, **more))
        monkeypatch.setattr(
            running, "load", lambda folder, *of: model if folder == demo.MODEL else load_model(folder, *of)
        )
        monkeypatch.setattr("funasr_cli.families.open.capabilities", lambda _: able)
        return model

    return use


@pytest.mark.slow
def test_every_clip_is_translated_word_for_word(translator: Path) -> None:
    """Into English, which is a copy for English speech; and into German."""
    for code, known in (("en", ENGLISH), ("de", GERMAN)):
        result = transcribe(
            *CLIPS, "--translate", "--translator", translator, "--translate-to", code, "-f", "json"
        )
        assert result.exit_code == 0, result
        found = [json.loads(line) for line in result.stdout.splitlines()]
        assert [one["text"] for one in found] == WRITTEN
        translations = [segment["translation"] for one in found for segment in one["segments"]]
        assert [each["text"] for each in translations] == [known[text] for text in WRITTEN]
        assert {(each["language"], each["stop_reason"]) for each in translations} == {(code, "eos")}
        assert {(one["translated_by"], one["complete"]) for one in found} == {("translator", True)}
        assert {one["ledger"]["untranslated_s"] for one in found} == {0.0}


@pytest.mark.slow
def test_every_sentence_on_every_engine(translator: Path) -> None:
    """The taught model is sure of each token, so engines and number types write the same texts."""
    engines = [("float32", "mlx"), ("int8", "native"), ("float32", "native")]
    for dtype, engine in engines if LIBRARY else engines[:1]:
        writer = TextGenerator(load_text(translator, dtype, engine))
        for code in ("en", "zh", "de"):
            known = taught(code)
            found = writer.translate_batch(list(known), code)
            assert [each.text for each in found] == list(known.values()), (dtype, engine)
            failed = writer.translate_batch([LOOPING, SILENT], code)
            assert [(each.text, each.stop_reason) for each in failed] == [("hello,", "loop"), ("", "eos")]


def test_lines_of_text(translator: Path) -> None:
    """A translation follows its text, unless it is the same."""
    result = transcribe(ZH.path, CLIPS[0], "--translate", "--translator", translator)
    assert result.stdout == (
        f"{ZH.path}: {ZH.written}\n{ZH.path}: [en] {ENGLISH[ZH.written]}\n{CLIPS[0]}: {WRITTEN[0]}\n"
    )
    spoken = transcribe(ZH.path, "--translate", "--translator", translator, "--no-itn", "--stream")
    assert spoken.stdout == f"{ZH.spoken}\n[en] {ENGLISH[ZH.spoken]}\n"


def test_subtitles_in_two_files(translator: Path, tmp_path: Path) -> None:
    """One for each language, as players know them. The transcript's file is the same as without a translation."""
    options = (ZH.path, "--translate", "--translator", translator, "-f", "srt,vtt,tsv,md,txt,json")
    result = transcribe(*options, "-o", tmp_path / "both")
    assert result.exit_code == 0, result
    transcribe(ZH.path, "-f", "srt,vtt", "-o", tmp_path / "plain")
    stem, both = ZH.path.stem, tmp_path / "both"
    assert {path.name for path in both.glob("[!.]*")} == {
        f"{stem}.{extension}" for extension in ("srt", "en.srt", "vtt", "en.vtt", "tsv", "md", "txt", "json")
    }
    for extension in ("srt", "vtt"):
        plain = (tmp_path / f"plain/{stem}.{extension}").read_text(encoding="utf-8")
        assert (both / f"{stem}.{extension}").read_text(encoding="utf-8") == plain
    english = (both / f"{stem}.en.srt").read_text(encoding="utf-8")
    assert cues(english) == [ENGLISH[ZH.written]]
    assert (both / f"{stem}.en.vtt").read_text(encoding="utf-8").endswith(f"\n{ENGLISH[ZH.written]}\n")
    head, row = (both / f"{stem}.tsv").read_text(encoding="utf-8").splitlines()
    assert head.split("\t") == ["start", "end", "text", "translation"]
    assert row.split("\t")[2:] == [ZH.written, ENGLISH[ZH.written]]
    assert f"\n  - **en** {ENGLISH[ZH.written]}\n" in (both / f"{stem}.md").read_text(encoding="utf-8")


def test_bilingual_subtitles(translator: Path, tmp_path: Path) -> None:
    """In one file if asked for, and always on stdout. The cues have the times of those without a translation."""
    options = (ZH.path, "--translate", "--translator", translator, "-f", "srt")
    printed = transcribe(*options).stdout
    assert transcribe(*options, "--bilingual", "-o", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.glob("[!.]*")] == [f"{ZH.path.stem}.srt"]
    assert (tmp_path / f"{ZH.path.stem}.srt").read_text(encoding="utf-8") == printed
    plain = transcribe(ZH.path, "-f", "srt").stdout
    assert times(printed) == times(plain)
    lines = [line for cue in cues(printed) for line in cue.splitlines()]
    assert "".join(line for line in lines if line.isascii()) == ENGLISH[ZH.written]
    assert [line for line in lines if not line.isascii()] == cues(plain)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{stem}.{ext}", ("a.srt", "a.de.srt")),
        ("{stem}.{lang}.{ext}", ("a.zh.srt", "a.de.srt")),
        ("{lang}/{stem}.{ext}", ("zh/a.srt", "de/a.srt")),
        ("{stem}", ("a", "a.de")),
    ],
)
def test_names_of_the_second_file(translator: Path, tmp_path: Path, template: str, names: tuple[str, str]) -> None:
    shutil.copyfile(ZH.path, tmp_path / "a.flac")
    options = ("-l", "zh", "--translate", "--translator", translator, "--translate-to", "de", "-f", "srt")
    out = tmp_path / "out"
    result = transcribe(tmp_path / "a.flac", *options, "-o", out, "--output-template", template)
    assert result.exit_code == 0, result
    first, second = (cues((out / name).read_text(encoding="utf-8")) for name in names)
    assert (first, second) == ([ZH.written], [GERMAN[ZH.written]])


def test_two_files_of_one_name_are_refused(translator: Path, tmp_path: Path) -> None:
    """Before anything is transcribed: also a translation and the transcript of another recording."""
    for name in ("a.flac", "a.en.flac"):
        shutil.copyfile(ZH.path, tmp_path / name)
    options = ("--translate", "--translator", translator, "-f", "srt", "-o", tmp_path)
    transcribe(tmp_path / "a.flac", tmp_path / "a.en.flac", *options).assert_error(2, "output-shared", "a.en.srt")
    same = ("-l", "en", "--output-template", "{stem}.{lang}.{ext}")
    transcribe(tmp_path / "a.flac", *options, *same).assert_error(2, "output-shared", "a.en.srt")
    (tmp_path / "a.en.srt").write_text("mine", encoding="utf-8")
    transcribe(tmp_path / "a.flac", *options).assert_error(1, "output-exists", "a.en.srt")
    assert not (tmp_path / "a.srt").exists()
    assert transcribe(tmp_path / "a.flac", *options, "--force").exit_code == 0
    assert cues((tmp_path / "a.en.srt").read_text(encoding="utf-8")) == [ENGLISH[ZH.written]]


def test_resume(translator: Path, tmp_path: Path) -> None:
    """The second file counts: it is made if it is missing, and again if the translator or the language changes."""
    other = shutil.copytree(translator, tmp_path / "other")
    (other / "vocab.json").write_text("{}", encoding="utf-8")
    out = tmp_path / "out"

    def run(*options: Any, model: Path = translator) -> list[str]:
        """Return the names of the files that are written."""
        before = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
        chosen = ("--translate", "--translator", model, *options) if model else ()
        result = transcribe(ZH.path, "-f", "srt", "-o", out, "--resume", *chosen)
        assert result.exit_code == 0, result
        after = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
        return sorted(path.name.removeprefix(ZH.path.stem) for path in after if before.get(path) != after[path])

    assert run() == [".en.srt", ".srt"]
    assert run() == []
    (out / f"{ZH.path.stem}.en.srt").unlink()
    assert run() == [".en.srt"]
    assert run("--translate-to", "de") == [".de.srt", ".srt"]
    assert run(model=other) == [".en.srt", ".srt"]
    assert run("--bilingual", model=other) == [".srt"]
    assert run("--bilingual", model=other) == []


@pytest.mark.parametrize(("text", "reason", "written"), [(LOOPING, "loop", "hello,"), (SILENT, "empty", "")])
def test_a_translation_that_fails(
    translator: Path, tmp_path: Path, speaking: Callable[..., SpeakingModel], text: str, reason: str, written: str
) -> None:
    """The transcript is kept, with a flag, a warning, a line in the summary and an exit code."""
    speaking(text)
    options = (ZH.path, "--translate", "--translator", translator)
    result = transcribe(*options, "-f", "txt,json,srt", "-o", tmp_path)
    assert result.exit_code == 4
    assert "1 translation incomplete" in result.stderr
    stem = ZH.path.stem
    data = json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8"))
    [segment] = data["segments"]
    assert (segment["text"], segment["state"], data["complete"]) == (text, "transcribed", False)
    assert (segment["translation"]["text"], segment["translation"]["stop_reason"]) == (written, reason)
    assert data["ledger"]["untranslated_s"] == pytest.approx(data["ledger"]["transcribed_s"])
    assert len(data["warnings"]) == 1
    lines = (tmp_path / f"{stem}.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [text, f"[en, incomplete] {written or '...'}"]
    assert cues((tmp_path / f"{stem}.en.srt").read_text(encoding="utf-8")) == [written or "..."]
    assert transcribe(*options, "--strict").exit_code == 1
    again = transcribe(*options, "-f", "txt,json,srt", "-o", tmp_path, "--resume")
    assert again.exit_code == 4, "its results are there, and incomplete"


def test_who_translates(translator: Path, speaking: Callable[..., SpeakingModel]) -> None:
    """A translator that is named on the command line does; a setting helps models that cannot."""
    own = Translation("by itself", "en")
    speaking(ZH.written, OWN, translation=own)
    setting = {"FUNASR_TRANSLATOR": str(translator)}
    by_model, by_translator = f"{ZH.written}\n[en] by itself\n", f"{ZH.written}\n[en] {ENGLISH[ZH.written]}\n"
    assert transcribe(ZH.path, "--translate").stdout == by_model
    assert transcribe(ZH.path, "--translate", **setting).stdout == by_model
    assert transcribe(ZH.path, "--translate", "--translator", translator).stdout == by_translator
    german = transcribe(ZH.path, "--translate", "--translate-to", "de", **setting)
    assert german.stdout == f"{ZH.written}\n[de] {GERMAN[ZH.written]}\n"
    speaking(ZH.written)
    assert transcribe(ZH.path, "--translate", **setting).stdout == by_translator
    assert transcribe(ZH.path, **setting).stdout == f"{ZH.written}\n"
    assert transcribe(ZH.path, FUNASR_TRANSLATE="1").stdout == f"{ZH.written}\n"
    assert transcribe(ZH.path, FUNASR_TRANSLATE_TO="de").stdout == f"{ZH.written}\n"


def test_who_translates_what_each_speaker_says(
    translator: Path, voices: Path, speaking: Callable[..., SpeakingModel]
) -> None:
    """Only a translator, also one from a setting. Without one, --translate is refused, and a setting ignored."""
    speaking(ZH.written, OWN, translation=Translation("by itself", "en"))
    translate, speakers = ("--translate",), ("--speakers", "1", "--speaker-model", voices)
    transcribe(ZH.path, *translate, *speakers).assert_error(2, "options-conflict", "--translator")
    by_translator = f"Speaker 1: {ZH.written}\n[en] {ENGLISH[ZH.written]}\n"
    setting = {"FUNASR_TRANSLATOR": str(translator)}
    assert transcribe(ZH.path, *translate, *speakers, **setting).stdout == by_translator
    assert transcribe(ZH.path, *translate, *speakers, "--translator", translator).stdout == by_translator
    speaking(ZH.written, OWN)
    assert transcribe(ZH.path, *speakers, FUNASR_TRANSLATE="1").stdout == f"Speaker 1: {ZH.written}\n"


@pytest.mark.parametrize(
    ("options", "exit_code", "code", "named"),
    [
        (("--translate",), 2, "option-unsupported", "--translator"),
        (("--translate", "--translate-to", "de"), 2, "option-unsupported", "--translator"),
        (("--translator", "demo"), 2, "option-idle", "--translate"),
        (("--translate-to", "de"), 2, "option-idle", "--translate"),
        (("--translate", "--translator", "demo"), 3, "model-unsupported", "demo"),
        (("--translate", "--translator", "qwen3-4b"), 3, "model-missing", "funasr convert qwen3-4b"),
        (("--translate", "--translator", "nosuch"), 3, "model-missing", "funasr convert qwen3-4b"),
        (("--translate", "--translator", "TAUGHT", "--translate-to", "klingon"), 2, "language-unknown", "klingon"),
        (("--translate", "--translator", "TAUGHT", "--bilingual"), 2, "option-idle", "srt"),
        (("--bilingual", "-f", "srt"), 2, "option-idle", "--translate"),
        (("--compare-hotwords", "--hotword", "a", "--translate"), 2, "option-idle", "--translate"),
    ],
)
def test_refusals(
    translator: Path, tmp_path: Path, options: tuple[str, ...], exit_code: int, code: str, named: str
) -> None:
    arguments = [str(translator) if each == "TAUGHT" else each for each in options]
    transcribe(ZH.path, *arguments, FUNASR_HOME=str(tmp_path)).assert_error(exit_code, code, named)


def test_it_is_no_speech_model(translator: Path) -> None:
    invoke("transcribe", "-m", translator, ZH.path).assert_error(3, "model-unsupported")


def test_a_converted_translator(tmp_path: Path, translator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; from Python as well."""
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    convert(translator, tmp_path / "models/chat")
    named = transcribe(ZH.path, "--translate", "--translator", "chat")
    assert named.stdout == f"{ZH.written}\n[en] {ENGLISH[ZH.written]}\n"
    found = funasr_cli.load("demo", translator="chat").transcribe(ZH.path, translate=True, translate_to="de")
    assert (found.text, found.translated.text) == (ZH.written, GERMAN[ZH.written])
    assert found.segments[0].translation
    assert found.segments[0].translation.language == "de"


def test_segments_of_one_recording(translator: Path, joined: Path) -> None:
    """Each has its own translation, in JSON and in the order of the text."""
    result = transcribe(joined, "--translate", "--translator", translator, "-f", "json", "--max-segment", "6")
    assert result.exit_code == 0, result
    segments = json.loads(result.stdout)["segments"]
    known = [segment for segment in segments if segment["text"] in ENGLISH]
    assert len(known) >= len(CLIPS) // 2
    assert [each["translation"]["text"] for each in known] == [ENGLISH[each["text"]] for each in known]
