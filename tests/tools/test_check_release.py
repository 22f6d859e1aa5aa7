"""`make check-release`, run on the bundled model and its clips: passes, failures and the report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hub_client import surroundings
from support.hub_server import MAIN, Hub, serving
from support.parity.live import reference_python
from support.running import PYTHON, Result, environment
from support.small import convert

from funasr_cli.demo import CLIPS, MODEL
from tools.export import export
from tools.release import __main__ as command
from tools.release.clips import RELEASE_CLIPS, read_clips

ROOT = Path(__file__).parents[2]
DRY_MAKE = ["make", "--no-print-directory", "--dry-run", "check-release"]
MANDARIN, ENGLISH = "打开车库的音乐。", "I will clean the kitchen this afternoon."
CHECKS = [  # of a recipe, with each verdict if all is well and PyTorch is not installed
    ("PASS", "is converted"), ("PASS", "computes as its source"), ("PASS", "is whole (--check)"),
    ("PASS", "0010-zh-commands.flac, text"), ("PASS", "0026-en-everyday.flac, text"),
    ("not measured", "texts compared with PyTorch"), ("not judged", "RTF"), ("not judged", "tokens per second"),
    ("not judged", "memory of MLX"), ("not judged", "memory of the process"),
]  # fmt: skip


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in FunASR's layout."""
    out = tmp_path_factory.mktemp("demo") / "upstream"
    export(MODEL, out)
    return out


def write_clips(folder: Path, mandarin: str = MANDARIN, english: str = ENGLISH) -> Path:
    """Write a list of two of the bundled clips."""
    rows = [("0010-zh-commands.flac", "zh", mandarin, 0), ("0026-en-everyday.flac", "en", english, 5)]
    names = ("file", "language", "text", "max_error_percent")
    lines = [json.dumps(dict(zip(names, (str(CLIPS / row[0]), *row[1:]), strict=True))) for row in rows]
    path = folder / "clips.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def check_release(*arguments: object, **env: str) -> Result:
    """Run it on a CPU, so that the verdicts do not depend on the machine."""
    command = [PYTHON, "-m", "tools.release", *map(str, arguments), "--device", "cpu", "--trials", "1"]
    done = subprocess.run(command, capture_output=True, env=environment(**env), cwd=ROOT, timeout=500, check=False)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


Main = Callable[..., Result]


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """A function that runs it in this process, for errors that occur immediately."""

    def run(*arguments: object) -> Result:
        try:
            code = command.main([*map(str, arguments)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def shown(result: Result) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the verdict on each check of each recipe, and what was found."""
    headings, *lines = result.stdout.split("\n\n")[0].splitlines()
    assert headings.split() == ["result", "recipe", "check", "found", "[wanted]"]
    rows = [re.split("  +", line, maxsplit=3) for line in lines]
    return {(recipe, what): (verdict, found) for verdict, recipe, what, found in rows}


def verdicts(result: Result, recipe: str) -> list[tuple[str, str]]:
    """Return the verdicts and checks of a recipe, in order."""
    return [(verdict, what) for (own, what), (verdict, _) in shown(result).items() if own == recipe]


def block(result: Result) -> str:
    """Return the block for an issue."""
    return result.stdout.split("\n\nTo paste into an issue:\n\n")[1]


@pytest.mark.slow
def test_everything_passes(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    arguments = (upstream, "--clips", write_clips(tmp_path), "--recipes", "none", "4")
    result = check_release(*arguments, TMPDIR=str(tmp_path / "tmp"))
    assert result.exit_code == 0, result
    assert verdicts(result, "PyTorch") == [("not measured", "transcribes")]
    assert verdicts(result, "none") == verdicts(result, "4") == CHECKS
    found = {key: text for key, (_, text) in shown(result).items()}
    assert "FUNASR_REFERENCE_PYTHON" in found["PyTorch", "transcribes"]
    for recipe, size, arrays, agreement in [("none", 7.4, 212, "nothing differs"), ("4", 4.9, 270, "10 of 10")]:
        assert f"212 tensors, {size} MB" in found[recipe, "is converted"]
        assert f"{arrays} arrays, SHA-256 of 9 files" in found[recipe, "is whole (--check)"]
        assert agreement in found[recipe, "computes as its source"]
        assert f"0.0 % errors: {ENGLISH}" in found[recipe, "0026-en-everyday.flac, text"]
    assert block(result).startswith("## Release acceptance: PASS (10 PASS, 8 not judged, 3 not measured)\n")
    assert "| model | upstream, a local folder, FunASR's layout |\n| revision | unknown |\n" in block(result)
    assert re.search(r"\| SHA-256 of the source \| ([0-9a-f]{64}) \|", block(result))
    assert f"| PASS | 4 | 0026-en-everyday.flac, text | 0.0 % errors: {ENGLISH} | at most 5 %:" in block(result)
    assert re.search(r"\| versions \| python 3[\d.]+, funasr-cli [\d.]+, mlx [\d.]+, ", block(result))
    assert str(tmp_path) not in block(result)
    assert list((tmp_path / "tmp").glob("funasr*")) == [], "only MLX may keep a folder there"


@pytest.mark.slow
def test_a_wrong_text_and_missed_targets_fail(upstream: Path, tmp_path: Path) -> None:
    """Targets given on the command line also apply on a CPU. Two wrong words of seven are more than 5 %."""
    clips = write_clips(tmp_path, mandarin="打开车库的声音", english="I will clean this garden this afternoon.")
    targets = ("--max-rtf", "0.000001", "--max-memory-gb", "0.001", "--min-tokens-per-s", "0.5")
    result = check_release(upstream, "--clips", clips, "--recipes", "4", *targets)
    assert result.exit_code == 1
    assert [verdict for verdict, _ in verdicts(result, "4")] == [
        "PASS", "PASS", "PASS", "FAIL", "FAIL", "not measured", "FAIL", "PASS", "FAIL", "FAIL",
    ]  # fmt: skip
    assert shown(result)["4", "0010-zh-commands.flac, text"][1].startswith("28.6 % errors: ")
    assert shown(result)["4", "RTF"][1].endswith("[under 1e-06]")
    assert block(result).startswith("## Release acceptance: FAIL (5 FAIL, 4 PASS, 2 not measured)\n")


@pytest.mark.full
def test_compared_with_pytorch(upstream: Path, tmp_path: Path) -> None:
    arguments = (upstream, "--clips", write_clips(tmp_path, english="Goodbye."), "--recipes", "none")
    result = check_release(*arguments, FUNASR_REFERENCE_PYTHON=str(reference_python()))
    assert result.exit_code == 1, "the text differs from the expected one, though PyTorch's is the same"
    lines = shown(result)
    assert {verdict for verdict, _ in verdicts(result, "PyTorch")} == {"not judged"}
    assert lines["PyTorch", "0010-zh-commands.flac, text"][1].startswith(f"0.0 % errors: {MANDARIN}")
    assert lines["PyTorch", "0026-en-everyday.flac, text"][1].startswith(f"700.0 % errors: {ENGLISH}")
    assert lines["none", "computes as PyTorch"][0] == "PASS"
    for clip in ("0010-zh-commands.flac", "0026-en-everyday.flac"):
        verdict, found = lines["none", f"{clip}, compared with PyTorch"]
        assert (verdict, found[:13]) == ("PASS", "0.0 % differs")
    assert re.search(r"\| versions \| .*, torch [\w.+]+, transformers [\w.]+, funasr [\w.]+ \|", block(result))


@pytest.mark.slow
def test_a_reference_that_breaks_down_fails(upstream: Path, tmp_path: Path) -> None:
    """The failure is reported in addition to the missing comparison: the reference exists but did not run."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "no such kernel" >&2\nexit 1\n')
    python.chmod(0o755)
    arguments = (upstream, "--clips", write_clips(tmp_path), "--recipes", "4")
    result = check_release(*arguments, FUNASR_REFERENCE_PYTHON=str(python))
    assert result.exit_code == 1
    for key, verdict in (
        (("PyTorch", "transcribes"), "FAIL"),
        (("4", "texts compared with PyTorch"), "not measured"),
    ):
        assert shown(result)[key][0] == verdict
        assert "(no such kernel)" in shown(result)[key][1]
    assert block(result).startswith("## Release acceptance: FAIL (1 FAIL, ")


@pytest.mark.slow
def test_what_cannot_be_converted_fails(tmp_path: Path) -> None:
    """A failed step ends its recipe, and the next recipe is tried."""
    quantized = convert(MODEL, tmp_path / "quantized", quantize="4").folder
    result = check_release(quantized, "--clips", write_clips(tmp_path), "--recipes", "none", "8")
    assert result.exit_code == 1
    assert verdicts(result, "PyTorch") == [("not measured", "transcribes")]
    for recipe in ("none", "8"):
        assert verdicts(result, recipe) == [("FAIL", "is converted"), ("not measured", "later checks")]
        assert f"{quantized}/model.safetensors" in shown(result)[recipe, "is converted"][1]
    assert block(result).startswith("## Release acceptance: FAIL (2 FAIL, 3 not measured)\n")
    assert "| SHA-256 of the source | unknown |\n" in block(result)


@pytest.mark.full
def test_from_a_hub(upstream: Path, tmp_path: Path) -> None:
    """The block has name, hub and commit. The conversions are kept in the given folder, also on a second run."""
    arguments = ("owner/model", "--clips", write_clips(tmp_path), "--recipes", "8", "--out", tmp_path / "out")
    with serving(Hub(upstream)) as hub:
        for _ in range(2):
            result = check_release(*arguments, **surroundings(tmp_path, hub.url))
            assert result.exit_code == 0, result
    assert "| model | owner/model from Hugging Face, FunASR's layout |\n" in block(result)
    assert f"| revision | {MAIN} |\n" in block(result)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model-8bit"]
    source = json.loads((tmp_path / "out/model-8bit/config.json").read_text())["source"]
    assert f"| SHA-256 of the source | {source['sha256']} |\n" in block(result)


CLIP = {"file": "a.wav", "language": "en", "text": "a", "max_error_percent": 0}


@pytest.mark.parametrize(
    ("lines", "code", "value"),
    [
        (None, "file-unreadable", "clips.jsonl"), ("", "clips-wrong", "clips.jsonl"),
        ("what?", "clips-wrong", "clips.jsonl:1"), ("[]", "clips-wrong", "clips.jsonl:1"),
        (json.dumps(CLIP | {"file": 5}), "clips-wrong", "clips.jsonl:1: file is 5"),
        (json.dumps(CLIP | {"language": "xx"}), "language-unknown", "'xx'"),
        (json.dumps(CLIP | {"text": "?"}), "clips-wrong", "'?'"), (json.dumps(CLIP), "input-missing", "a.wav"),
    ],
)  # fmt: skip
def test_invalid_clips(tmp_path: Path, lines: str | None, code: str, value: str, main: Main) -> None:
    clips = tmp_path / "clips.jsonl"
    if lines is not None:
        clips.write_text(lines)
    main(MODEL, "--clips", clips).assert_error(2, code, value)


def test_no_such_model(tmp_path: Path, main: Main) -> None:
    main(tmp_path / "nothing").assert_fails(3, f"{tmp_path}/nothing: ")


@pytest.mark.process
def test_a_reference_that_was_named_must_be_one(
    upstream: Path, tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUNASR_REFERENCE_PYTHON", str(tmp_path / "python"))
    main(upstream).assert_error(5, "reference-missing", f"{tmp_path}/python: ")


@pytest.mark.parametrize("arguments", [("--recipes", "5"), ("--hub", "no"), ("--trials", "x"), ()])
def test_wrong_options(arguments: tuple[str, ...], main: Main) -> None:
    result = main(*(arguments and (MODEL, *arguments)))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: " in result.stderr


def test_the_default_clips() -> None:
    mandarin, english = read_clips(RELEASE_CLIPS)
    assert (mandarin.path.name, mandarin.language, mandarin.text) == ("zh-6s.wav", "zh", "我想问我在滨海新区有房")
    assert mandarin.max_error_percent == 0
    assert (english.path.name, english.language, english.max_error_percent) == ("en-11s-jfk.flac", "en", 5)
    assert english.text.startswith("And so, my fellow Americans, ask not what your country can do for you, ")


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_passes_its_variables_on(tmp_path: Path) -> None:
    variables = ["MODEL=a/b", "HUB=ms", "RECIPES=none 4", f"OUT={tmp_path}", "REFERENCE_PYTHON=x/python"]
    command = [*DRY_MAKE, *variables, "RELEASE_OPTIONS=--trials 1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    words = done.stdout.replace("\\\n", " ").splitlines()[-1].split()
    assert words == [
        'FUNASR_REFERENCE_PYTHON="x/python"', ".venv/bin/python", "-m", "tools.release", '"a/b"',
        "--hub", '"ms"', "--recipes", "none", "4", "--out", f'"{tmp_path}"', "--trials", "1",
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
@pytest.mark.parametrize(
    ("files", "named", "asked"),
    [
        ([], "", ""),
        (["bin/python"], "", ""),  # incomplete installation
        (["bin/python", ".installed"], "", "{reference}/bin/python"),
        (["bin/python", ".installed"], "other/python", "other/python"),
        ([], "other/python", "other/python"),
    ],
)
def test_which_reference_make_asks(tmp_path: Path, files: list[str], named: str, asked: str) -> None:
    (tmp_path / "bin").mkdir()
    for file in files:
        (tmp_path / file).touch()
    env = {name: value for name, value in os.environ.items() if name != "REFERENCE_PYTHON"}
    env["FUNASR_REFERENCE_PYTHON"] = named
    done = subprocess.run(
        [*DRY_MAKE, f"REFERENCE={tmp_path}"], capture_output=True, text=True, cwd=ROOT, check=True, env=env
    )
    assert f'FUNASR_REFERENCE_PYTHON="{asked.format(reference=tmp_path)}" ' in done.stdout
