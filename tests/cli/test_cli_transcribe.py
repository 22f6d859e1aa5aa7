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
from support.small import convert

import funasr_cli
from funasr_cli.transcript import Ledger

FEW = ("--max-tokens", "6")
WHOLE = "--no-vad"  # random weights end their texts of whole clips only


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
    """Cut short, all of them, so that the input has failed; the text is shown all the same."""
    result = invoke("transcribe", "-m", small_model, zh_wav, *FEW)
    assert result.stdout == lines_of(small_model, zh_wav, max_tokens=6)
    assert len(result.stdout.splitlines()) == 2
    warnings = cut_short(zh_wav, "0.9-2.4", 6) + cut_short(zh_wav, "3.5-6.0", 6)
    assert result.stderr == f"{warnings}1 of 1 inputs failed; {summary('0:04', '0.0%', failed=2, lost='0:04')}"
    assert result.exit_code == 1


@pytest.mark.slow
def test_text_that_is_cut_short(stopping_model: Path, zh_wav: Path, en_flac: Path) -> None:
    """The one has a complete segment, the other none."""
    whole = lines_of(stopping_model, zh_wav, vad=False, max_tokens=6)
    result = invoke("transcribe", "-m", stopping_model, zh_wav, WHOLE, *FEW)
    assert (result.exit_code, result.stdout, result.stderr) == (0, whole, summary("0:06"))
    cut = lines_of(stopping_model, en_flac, vad=False, max_tokens=5)
    result = invoke("transcribe", "-m", stopping_model, en_flac, WHOLE, "--max-tokens", 5)
    assert (result.exit_code, result.stdout) == (1, cut)
    last = f"1 of 1 inputs failed; {summary('0:11', '0.0%', failed=1, lost='0:11')}"
    assert result.stderr == f"{cut_short(en_flac, '0.0-11.0', 5)}{last}"


@pytest.mark.slow
def test_json_lines(small_model: Path, clips: list[Path]) -> None:
    result = invoke("transcribe", "-m", small_model, *clips, "--format", "json", "--lang", "ja", *FEW)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["source"] for line in lines] == list(map(str, clips))
    for line, clip in zip(lines, clips, strict=True):
        expected = funasr_cli.load(str(small_model)).transcribe(clip, language="ja", max_tokens=6)
        assert (line["text"], line["language"], line["complete"]) == (expected.text, "ja", False)
        (segment,) = line["segments"]
        assert (segment["stop_reason"], segment["state"], segment["retries"]) == ("budget", "failed", 0)
        assert segment["tokens"] == line["timings"]["tokens"] == 6
        assert line["warnings"] == ["0.0-0.5 s: cut short after 6 tokens: the end may be missing"]
        assert Ledger(**line["ledger"]) == Ledger(failed_s=pytest.approx(0.5, abs=0.02))
    assert result.exit_code == 1


@pytest.mark.slow
def test_ctc_text_is_in_the_json(make_checkpoint: object, tmp_path: Path, short_wav: Path) -> None:
    checkpoint = make_checkpoint(with_ctc=True)  # type: ignore[operator]
    folder = convert(checkpoint, tmp_path / "m").folder
    result = invoke("transcribe", "-m", folder, short_wav, "-f", "json", *FEW)
    recognizer = funasr_cli.load(str(folder))
    expected = recognizer.transcribe(short_wav, max_tokens=6, ctc=True).segments[0].ctc_text
    assert isinstance(expected, str)
    assert json.loads(result.stdout)["segments"][0]["ctc_text"] == expected


@pytest.mark.slow
def test_outputs_that_appear_meanwhile_are_kept(
    stopping_model: Path, zh_wav: Path, en_flac: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if somebody had written the file between the look and the result."""
    monkeypatch.setattr("funasr_cli.cli.output.Files.prepare", lambda *_: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "zh-6s.txt").write_text("mine")
    result = invoke("transcribe", "-m", stopping_model, zh_wav, en_flac, WHOLE, "-o", out)
    assert (result.exit_code, result.errors[0][0]) == (1, "output-exists")
    assert result.stdout == lines_of(stopping_model, zh_wav, f"{zh_wav}: ", vad=False), "it is not lost"
    assert result.stderr.endswith(f"\n1 of 2 inputs failed; {summary('0:17')}")
    lines = lines_of(stopping_model, en_flac, vad=False)
    assert tree(out) == {"zh-6s.txt": b"mine", "en-11s-jfk.txt": lines.encode()}


def test_output_dir_that_cannot_be_made(small_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in ("file/out", "file"):
        result = invoke("transcribe", "-m", small_model, "a.wav", "-o", tmp_path / out)
        result.assert_error(1, "output-unwritable", str(tmp_path / out))


@pytest.mark.parametrize("name", ["[red]a[bold].wav", "录音 1.wav", "a\nb.wav", ":smile:.wav", "%s{0}.wav"])
def test_names_are_shown_as_they_are(small_model: Path, short_wav: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copyfile(short_wav, path)
    result = invoke("transcribe", "-m", small_model, path, path, *FEW)
    assert result.stdout.startswith(f"{path}: ")
    assert cut_short(path, "0.0-0.5", 6) * 2 in result.stderr
    path.write_text("no recording")
    invoke("transcribe", "-m", small_model, path).assert_error(1, "audio-unreadable", f"{path}: ")


def test_languages(small_model: Path, short_wav: Path) -> None:
    outputs = {
        lang: invoke("transcribe", "-m", small_model, short_wav, "-l", lang, *FEW).stdout
        for lang in ("auto", "zh", "中文", "Chinese", "ja")
    }
    assert outputs["zh"] == outputs["中文"] == outputs["Chinese"]
    assert len(set(outputs.values())) == 3
    result = invoke("transcribe", "-m", small_model, short_wav, "--lang", "ko")
    result.assert_fails(2, "'ko'", "zh (Chinese), en (English), ja (Japanese), or auto")


def test_hotwords_from_options_and_a_file(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeff滨海\r\n\r\n  Kennedy  \n".encode())
    result = invoke("transcribe", "-m", small_model, short_wav, "--hotword", "a", "--hotwords-file", file, *FEW)
    words = ("a", "滨海", "Kennedy")
    assert result.stdout == lines_of(small_model, short_wav, hotwords=words, max_tokens=6)
    plain = invoke("transcribe", "-m", small_model, short_wav, *FEW).stdout
    assert plain != result.stdout


def test_hotwords_files_that_are_none(short_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_bytes(b"\n \n")
    reasons = {
        "bytes": "is not UTF-8 text",
        "empty": "there are no",
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
            "transcribe", "-m", small_model, zh_wav, "--max-tokens", 12, "--temperature", "3", *options
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


def test_no_model(tmp_path: Path, short_wav: Path) -> None:
    home = {"FUNASR_HOME": str(tmp_path)}
    invoke("transcribe", short_wav, env=home).assert_fails(3, str(tmp_path / "models"))
    for name in ("nowhere", "a" * 300, "~nobody-has-this-name"):
        invoke("transcribe", "-m", name, short_wav, env=home).assert_fails(3, name)
