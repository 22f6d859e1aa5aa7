"""`funasr transcribe`: exact output, exit codes, files."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.expected import cut_short, lines_of, summary
from support.running import funasr, invoke, tree

from funasr_cli import demo
from funasr_cli.hubs.find import find_model

FEW = ("--max-tokens", "6")
WHOLE = "--no-vad"  # with random weights, only texts of whole clips end


@pytest.fixture
def clips(tmp_path: Path, short_wav: Path) -> list[Path]:
    """Three short recordings in different formats."""
    samples, rate_hz = soundfile.read(short_wav)
    paths = [tmp_path / name for name in ("a.wav", "b.flac", "c.ogg")]
    for path in paths:
        soundfile.write(path, np.stack([samples, samples], 1), rate_hz)
    return paths


def test_text_on_stdout_and_nothing_else(stopping_model: Path, zh_wav: Path) -> None:
    result = funasr("transcribe", "--model", stopping_model, zh_wav, WHOLE)
    assert result.stdout == lines_of(stopping_model, zh_wav, vad=False)
    assert result.stdout.strip()
    assert (result.exit_code, result.stderr) == (0, summary("0:06"))


def test_a_line_for_each_segment(small_model: Path, zh_wav: Path) -> None:
    """All segments stop at the token limit, so the input has failed; the text is printed anyway."""
    result = invoke("transcribe", "-m", small_model, zh_wav, *FEW)
    assert result.stdout == lines_of(small_model, zh_wav, max_tokens=6)
    assert len(result.stdout.splitlines()) == 2
    warnings = cut_short(zh_wav, "0.9-2.4", 6) + cut_short(zh_wav, "3.5-6.0", 6)
    assert result.stderr == f"{warnings}the input failed; {summary('0:04', '0.0%', failed=2, lost='0:04')}"
    assert result.exit_code == 1


@pytest.mark.slow
def test_outputs_that_appear_meanwhile_are_kept(
    stopping_model: Path, zh_wav: Path, en_flac: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is created after the check for existing files and before the result is written."""
    monkeypatch.setattr("funasr_cli.cli.output.Files.prepare", lambda *_: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "zh-6s.txt").write_text("mine")
    result = invoke("transcribe", "-m", stopping_model, zh_wav, en_flac, WHOLE, "-o", out)
    assert (result.exit_code, result.errors[0][0]) == (1, "output-exists")
    assert result.stdout == lines_of(stopping_model, zh_wav, f"{zh_wav}: ", vad=False), "the text must not be lost"
    assert result.stderr.endswith(f"\n1 of 2 inputs failed; {summary('0:17')}")
    lines = lines_of(stopping_model, en_flac, vad=False)
    assert tree(out) == {"zh-6s.txt": b"mine", "en-11s-jfk.txt": lines.encode()}


@pytest.mark.parametrize("name", ["[red]a[bold].wav", "录音 1.wav", "a\nb.wav", ":smile:.wav", "%s{0}.wav"])
def test_names_are_shown_as_they_are(small_model: Path, short_wav: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copyfile(short_wav, path)
    result = invoke("transcribe", "-m", small_model, path, path, *FEW)
    assert result.stdout.startswith(f"{path}: ")
    assert cut_short(path, "0.0-0.5", 6) * 2 in result.stderr
    path.write_text("no recording")
    invoke("transcribe", "-m", small_model, path).assert_error(1, "audio-unreadable", f"{path}: ")


def test_hotwords_from_options_and_a_file(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeff滨海\r\n\r\n  Kennedy  \n".encode())
    result = invoke("transcribe", "-m", small_model, short_wav, "--hotword", "a", "--hotwords-file", file, *FEW)
    words = ("a", "滨海", "Kennedy")
    assert result.stdout == lines_of(small_model, short_wav, hotwords=words, max_tokens=6)
    plain = invoke("transcribe", "-m", small_model, short_wav, *FEW).stdout
    assert plain != result.stdout


def test_invalid_hotwords_files(short_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_bytes(b"\n \n")
    reasons = {
        "bytes": "is not UTF-8 text",
        "empty": "contains no hotwords",
        "missing": "no such file",
        ".": "is a folder",
    }
    for name, reason in reasons.items():
        path = tmp_path / name
        result = invoke("transcribe", short_wav, "--hotwords-file", path)
        result.assert_error(2, "file-unreadable", f"{path}: {reason}")


@pytest.mark.slow
def test_sampling_is_reproducible(small_model: Path, zh_wav: Path) -> None:
    def run(*options: str) -> str:
        return invoke(
            "transcribe", "-m", small_model, zh_wav, "--max-tokens", 12, "--temperature", "2", *options
        ).stdout

    assert run("--seed", "7") == run("--seed", "7")
    assert run() == run("--seed", "0")
    assert len({run("--seed", str(seed)) for seed in range(4)}) > 1
    greedy = invoke("transcribe", "-m", small_model, zh_wav, "--max-tokens", 12).stdout
    assert run("--seed", "7", "--top-k", "1") == run("--top-p", "1e-9") == greedy


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_models(model: Path, short_wav: Path, name: str) -> None:
    os.truncate(model / name, 100)
    invoke("transcribe", "-m", model, short_wav).assert_error(3, "model-damaged", str(model / name))


# --- the bundled model: available offline, but only used on request ---


def test_it_is_small_and_complete() -> None:
    files = [path for path in demo.MODEL.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "multilingual.tiktoken", "README.md"} <= {
        path.name for path in files
    }
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert json.loads((demo.MODEL / "config.json").read_text())["dtype"] == "bfloat16"


def test_clips_and_their_texts() -> None:
    clips = demo.clips()
    assert len(clips) >= 6
    assert {clip.language for clip in clips} == {"en", "zh"}
    assert {clip.path for clip in clips} == set(demo.CLIPS.glob("*.flac"))


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_it_reads_its_clips(options: tuple[str, ...], tmp_path: Path) -> None:
    """In a separate process, without network access and without converted models."""
    clips = demo.clips()
    paths = [clip.path for clip in clips]
    result = funasr("transcribe", "-m", "demo", *paths, *options, env={"FUNASR_HOME": str(tmp_path)})
    assert (result.exit_code, result.stderr) == (0, summary("0:24"))
    assert result.stdout == "".join(f"{clip.path}: {clip.written}\n" for clip in clips)


def test_it_is_offered_but_never_taken_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds for its copy made by `funasr convert demo`."""
    home = {"FUNASR_HOME": str(tmp_path)}
    codes = {
        ("transcribe", demo.clips()[0].path): (2, "download-unconfirmed"),
        ("bench", "--rtf"): (3, "model-missing"),
    }
    for command, code in codes.items():
        invoke(*command, env=home).assert_error(*code, "no model has been", "demo")
    shutil.copytree(demo.MODEL, tmp_path / "models/demo")
    for command, code in codes.items():
        invoke(*command, env=home).assert_error(*code, "no model except the demo", "demo")
    result = invoke("models", env=home)
    assert (result.stdout.split("\n")[0], result.stderr[:19]) == ("demo", "only the demo model")
    shutil.copytree(demo.MODEL, tmp_path / "models/mine")
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    assert find_model(None) == tmp_path / "models/mine"


def test_a_converted_model_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    assert find_model("demo") == demo.MODEL
    shutil.copytree(demo.MODEL, tmp_path / "models/demo")
    assert find_model("demo") == tmp_path / "models/demo"
