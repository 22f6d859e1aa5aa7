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
    result = funasr("transcribe", "-m", small_model, zh_wav, *FEW)
    assert result.stdout == lines_of(small_model, zh_wav, max_tokens=6)
    assert len(result.stdout.splitlines()) == 2
    warnings = cut_short(zh_wav, "0.9-2.4", 6) + cut_short(zh_wav, "3.5-6.0", 6)
    assert result.stderr == f"{warnings}1 of 1 inputs failed; {summary('0:04', '0.0%', failed=2)}"
    assert result.exit_code == 1


def test_text_that_is_cut_short(stopping_model: Path, zh_wav: Path, en_flac: Path) -> None:
    """The one has a complete segment, the other none."""
    whole = lines_of(stopping_model, zh_wav, vad=False, max_tokens=6)
    result = funasr("transcribe", "-m", stopping_model, zh_wav, WHOLE, *FEW)
    assert (result.exit_code, result.stdout, result.stderr) == (0, whole, summary("0:06"))
    cut = lines_of(stopping_model, en_flac, vad=False, max_tokens=5)
    result = funasr("transcribe", "-m", stopping_model, en_flac, WHOLE, "--max-tokens", 5)
    assert (result.exit_code, result.stdout) == (1, cut)
    assert result.stderr == (
        f"{cut_short(en_flac, '0.0-11.0', 5)}1 of 1 inputs failed; {summary('0:11', '0.0%', failed=1)}"
    )


def test_two_processes_agree(small_model: Path, en_flac: Path) -> None:
    runs = [funasr("transcribe", "-m", small_model, en_flac, "--max-tokens", 30) for _ in range(2)]
    assert runs[0] == runs[1]


def test_several_inputs_are_named(stopping_model: Path, zh_wav: Path, en_flac: Path) -> None:
    result = invoke("transcribe", "-m", stopping_model, zh_wav, en_flac, WHOLE)
    assert result.stdout == "".join(
        lines_of(stopping_model, clip, f"{clip}: ", vad=False) for clip in (zh_wav, en_flac)
    )
    assert (result.exit_code, result.stderr) == (0, summary("0:17"))


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
        assert line["ledger"] == {
            "transcribed_s": 0.0,
            "repaired_s": 0.0,
            "failed_s": 0.5,
            "silence_s": 0.0,
            "doubtful_s": 0.0,
        }
    assert result.exit_code == 1


def test_ctc_text_is_in_the_json(make_checkpoint: object, tmp_path: Path, short_wav: Path) -> None:
    checkpoint = make_checkpoint(with_ctc=True)  # type: ignore[operator]
    folder = convert(checkpoint, tmp_path / "m").folder
    result = invoke("transcribe", "-m", folder, short_wav, "-f", "json", *FEW)
    recognizer = funasr_cli.load(str(folder))
    expected = recognizer.transcribe(short_wav, max_tokens=6, ctc=True).segments[0].ctc_text
    assert isinstance(expected, str)
    assert json.loads(result.stdout)["segments"][0]["ctc_text"] == expected


@pytest.mark.parametrize("format", ["txt", "json"])
def test_output_dir(small_model: Path, clips: list[Path], tmp_path: Path, format: str) -> None:
    out = tmp_path / "new/out"
    result = invoke("transcribe", "-m", small_model, *clips, "-o", out, "-f", format, *FEW)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(tree(out)) == [f"{name}.{format}" for name in "abc"]
    for clip in clips:
        written = out / f"{clip.stem}.{format}"
        assert f"wrote {written}\n" in result.stderr
        content = written.read_text(encoding="utf-8")
        lines = lines_of(small_model, clip, max_tokens=6)
        assert lines.strip()
        assert content == lines if format == "txt" else json.loads(content)["text"] == lines.rstrip("\n")


def test_existing_outputs_are_kept(small_model: Path, clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.txt").write_text("mine")
    result = invoke("transcribe", "-m", small_model, *clips, "-o", out, *FEW)
    assert (result.exit_code, result.stdout) == (1, "")
    result.assert_error(1, "output-exists", str(out / "b.txt"))
    assert result.stderr.endswith(f"3 of 3 inputs failed; {summary('0:01', '0.0%', failed=2)}")
    assert (out / "b.txt").read_text() == "mine"
    assert sorted(tree(out)) == ["a.txt", "b.txt", "c.txt"]


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
        result.assert_fails(1, "cannot be made (")


def test_output_dir_is_not_made_without_a_model(tmp_path: Path) -> None:
    invoke("transcribe", "-m", "nowhere", "a.wav", "-o", tmp_path / "out").assert_fails(3)
    assert not (tmp_path / "out").exists()


def test_bad_files_among_good_ones(stopping_model: Path, zh_wav: Path, tmp_path: Path) -> None:
    """The others are done, every bad one is named with its reason, and the exit code tells."""
    bad = {"text.wav": "not audio that can be read here", "empty.wav": "the file is empty"}
    (tmp_path / "text.wav").write_text("no recording")
    (tmp_path / "empty.wav").touch()
    paths = [
        tmp_path / "text.wav",
        zh_wav,
        tmp_path / "empty.wav",
        tmp_path / "none.wav",
        zh_wav,
    ]
    before = tree(tmp_path)
    result = funasr("transcribe", "-m", stopping_model, *paths, WHOLE)
    assert result.stdout == lines_of(stopping_model, zh_wav, f"{zh_wav}: ", vad=False) * 2
    assert result.exit_code == 1
    for name, reason in (bad | {"none.wav": "no such file"}).items():
        assert f"]: {tmp_path / name}: {reason}" in result.stderr
    assert result.stderr.endswith(f"\n3 of 5 inputs failed; {summary('0:12')}")
    assert "Traceback" not in result.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["[red]a[bold].wav", "录音 1.wav", "a\nb.wav", ":smile:.wav", "%s{0}.wav"])
def test_names_are_shown_as_they_are(small_model: Path, short_wav: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copyfile(short_wav, path)
    result = invoke("transcribe", "-m", small_model, path, path, *FEW)
    assert result.stdout.startswith(f"{path}: ")
    assert cut_short(path, "0.0-0.5", 6) * 2 in result.stderr
    path.write_text("no recording")
    assert f"error[audio-unreadable]: {path}: not audio" in invoke("transcribe", "-m", small_model, path).stderr


def test_languages(small_model: Path, short_wav: Path) -> None:
    outputs = {
        lang: invoke("transcribe", "-m", small_model, short_wav, "-l", lang, *FEW).stdout
        for lang in ("auto", "zh", "中文", "Chinese", "ja")
    }
    assert outputs["zh"] == outputs["中文"] == outputs["Chinese"]
    assert len(set(outputs.values())) == 3
    result = invoke("transcribe", "-m", small_model, short_wav, "--lang", "ko")
    result.assert_fails(
        2,
        "error: language 'ko' is not one of this model's\n",
        "\n  it writes zh (Chinese), en (English), ja (Japanese), or auto\n",
    )


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
    for name in ("bytes", "empty", "missing", "."):
        path = tmp_path / name
        invoke("transcribe", short_wav, "--hotwords-file", path).assert_error(2, "hotwords-file", f"{path}: ")


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


@pytest.mark.parametrize(
    ("name", "size"), [("model.safetensors", 1000), ("config.json", 100), ("tokenizer.json", 100)]
)
def test_damaged_models(model: Path, short_wav: Path, name: str, size: int) -> None:
    os.truncate(model / name, size)
    funasr("transcribe", "-m", model, short_wav).assert_error(3, "model-damaged", str(model / name))


def test_newer_models(model: Path, short_wav: Path) -> None:
    config = (model / "config.json").read_text().replace('"format_version": 1', '"format_version": 2')
    (model / "config.json").write_text(config)
    result = invoke("transcribe", "-m", model, short_wav)
    result.assert_fails(
        3, "format version 2, this funasr reads 1\n  upgrade funasr-cli, or convert the source again\n"
    )


def test_no_model(tmp_path: Path, short_wav: Path) -> None:
    result = funasr("transcribe", short_wav, env={"FUNASR_HOME": str(tmp_path)})
    result.assert_fails(3, f"error: no model has been converted yet (looked in {tmp_path / 'models'})\n")
    for name in ("nowhere", "a" * 300, "~nobody-has-this-name"):
        invoke("transcribe", "-m", name, short_wav, env={"FUNASR_HOME": str(tmp_path)}).assert_fails(
            3, "no such model"
        )
