"""What `funasr bench` makes of a measurement: error rates, ratios to an earlier one, pictures; random models."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.running import invoke
from test_cli_bench import measured

from funasr_cli import demo

RTF = ("--rtf", "-m", "demo", "--trials", 1)
CLIPS = demo.clips()[:2]


@pytest.fixture
def refs(tmp_path: Path) -> Path:
    """What is said in two clips, with a word too many and a character that is another."""
    texts = [CLIPS[0].written + " Yes", CLIPS[1].written.replace("块", "元")]
    assert texts[1] != CLIPS[1].written
    path = tmp_path / "refs.tsv"
    lines = [f"{clip.path.name}\t{text}\n" for clip, text in zip(CLIPS, texts, strict=True)]
    path.write_text("".join(lines) + "\nelse.wav\t\n", encoding="utf-8")
    return path


def test_error_rates(refs: Path) -> None:
    cases = measured(*RTF, *(clip.path for clip in CLIPS), "--refs", refs, "--recordings", 2)["cases"]
    assert [case["errors"] for case in cases] == [
        {"substitutions": 0, "deletions": 1, "insertions": 0, "total": 8, "edits": 1, "percent": 12.5},
        {"substitutions": 1, "deletions": 0, "insertions": 0, "total": 6, "edits": 1, "percent": 100 / 6},
    ]
    assert cases[0]["texts"] == [CLIPS[0].written] * 2


def test_error_rates_in_the_table(refs: Path) -> None:
    paths = [clip.path for clip in CLIPS]
    shown = invoke("bench", *RTF, *paths, "--refs", refs).stdout
    assert f"demo, {paths[0].name}: 12.50 % errors, 1 of 8 (0 wrong, 1 missing, 0 too many).\n" in shown
    assert (
        "Errors: NFKC, case-folded, a unit for each CJK character and each other word, no punctuation.\n" in shown
    )
    batches = ("--batches", "-m", "demo", "--trials", 1, "--recordings", 4, "--batch-sizes", 4)
    (case,) = measured(*batches, *paths, "--refs", refs)["cases"]
    assert (case["errors"]["edits"], case["errors"]["total"]) == (2, 14), "each file counts once"


def test_texts_with_numbers_in_words(tmp_path: Path) -> None:
    (tmp_path / "refs.tsv").write_text(f"{CLIPS[0].path}\t{CLIPS[0].spoken}\n", encoding="utf-8")
    for itn, wrong in (("--no-itn", False), ("--itn", True)):
        data = measured(*RTF, CLIPS[0].path, "--refs", tmp_path / "refs.tsv", itn)
        assert bool(data["cases"][0]["errors"]["edits"]) == wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.wav text\n", "refs.tsv:1: no tab\n  each line is a file name, a tab and a text\n"),
        (b"a.wav\tx\n\na.wav\ty\n", "refs.tsv:3: a.wav stands there twice\n"),
        (b"\xff\xfe\n", "refs.tsv: cannot be read ("),
        (b"b.wav\tx\n", f"error: {CLIPS[0].path}: no text among the references\n"),
    ],
)
def test_references_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "refs.tsv").write_bytes(content)
    invoke("bench", *RTF, CLIPS[0].path, "--refs", tmp_path / "refs.tsv").assert_fails(2, message)


@pytest.mark.parametrize("option", [("--exact-tokens", 4), ("--durations", 9), ("--synthetic", "demo")])
def test_references_without_texts(option: tuple[Any, ...]) -> None:
    result = invoke("bench", *RTF, "--refs", "none.tsv", *option)
    result.assert_fails(2, f"error: --refs with {option[0]}\n  there are no texts to compare\n")


def test_error_rates_without_rapidfuzz(refs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    result = invoke("bench", *RTF, CLIPS[0].path, "--refs", refs)
    result.assert_fails(5, "error: error rates are counted by rapidfuzz (", "pip install rapidfuzz\n")


Earlier = Callable[[Callable[[dict[str, Any]], Any]], Path]


@pytest.fixture
def earlier(tmp_path: Path) -> Earlier:
    """A measurement of the first clip, changed afterwards."""

    def make(change: Callable[[dict[str, Any]], Any]) -> Path:
        data = measured(*RTF, CLIPS[0].path)
        change(data)
        path = tmp_path / "earlier.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return path

    return make


def halve_memory_and_rename(data: dict[str, Any]) -> None:
    (case,) = data["cases"]
    case["peak_mlx_bytes"] //= 2
    data["cases"].append(case | {"case": "demo, gone.wav"})
    data["versions"]["mlx"] = "0.1"


def test_comparison(earlier: Earlier) -> None:
    path = earlier(halve_memory_and_rename)
    data = measured(*RTF, *(clip.path for clip in CLIPS), "--compare", path)
    comparison, case = data["comparison"], f"demo, {CLIPS[0].path.name}"
    assert list(comparison["ratios"]) == [case]
    now, before = (
        measurement["cases"][0]["peak_mlx_bytes"] for measurement in (data, json.loads(path.read_text()))
    )
    ratio = comparison["ratios"][case]["peak_mlx_bytes"]
    assert ratio["now_to_earlier"] == pytest.approx(now / before)
    assert not ratio["within_spread"]
    tokens = comparison["ratios"][case]["tokens"]
    assert (tokens["now_to_earlier"], tokens["within_spread"]) == (1, True)
    assert {"stages.total_s", "stages.first_token_s", "tokens_per_s", "rtf"} <= comparison["ratios"][case].keys()
    assert comparison["only_now"] == [f"demo, {CLIPS[1].path.name}"]
    assert comparison["only_earlier"] == ["demo, gone.wav"]
    assert [change for change in comparison["changes"] if "mlx" in change] == [
        f"versions.mlx: 0.1, then {data['versions']['mlx']}"
    ]


def test_comparison_in_the_table(earlier: Earlier) -> None:
    path = earlier(halve_memory_and_rename)
    result = invoke("bench", *RTF, CLIPS[1].path, "--compare", path, "--markdown")
    lines = result.stdout.splitlines()
    heading = "| now / earlier | total | encoder | CTC | prefill | first token | decode | tok/s | passes "
    assert f"{heading}| MLX memory | process memory |" in lines
    assert f"Not measured earlier: demo, {CLIPS[1].path.name}" in lines
    assert f"Not measured now: demo, {CLIPS[0].path.name}" in lines
    assert "Not measured now: demo, gone.wav" in lines
    assert any(line.startswith("Changed: versions.mlx: 0.1, then ") for line in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "not a measurement\n  --compare takes what --json printed\n"),
        ("{", "cannot be read ("),
        (
            '{"format": "funasr-bench", "format_version": 1, "mode": "rtf", "models": [], "cases": [{}]}',
            "not a whole measurement\n",
        ),
        ('{"format": "funasr-bench", "format_version": 2}', "format version 2, not 1\n"),
        (
            '{"format": "funasr-bench", "format_version": 1, "mode": "memory"}',
            "of --memory, not of --rtf\n  compare like with like\n",
        ),
    ],
)
def test_what_cannot_be_compared(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    result = invoke("bench", *RTF, "--compare", tmp_path / "a.json")
    result.assert_fails(2, f"error: {tmp_path / 'a.json'}: {message}")


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_pictures(name: str, small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    options = ("--durations", "1,2", "--batch-sizes", "1,2", "--exact-tokens", 2, "--trials", 1)
    result = invoke("bench", "--rtf", "-m", small_model, short_wav, *options, "--plot", tmp_path / name)
    assert result.exit_code == 0
    content = (tmp_path / name).read_bytes()
    assert content.startswith({"a.png": b"\x89PNG", "a.svg": b"<?xml"}[name])
    if name == "a.svg":
        for text in ("joined 1 s x 2, batch of 1", "seconds of audio in a recording", "segments side by side"):
            assert f"{text}</text>".encode() in content


def test_names_in_pictures_are_taken_as_they_are(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    clip = tmp_path / "$\\会议$.wav"
    clip.write_bytes(short_wav.read_bytes())
    arguments = ("bench", "--rtf", "-m", small_model, clip, "--exact-tokens", 2, "--trials", 1, "--plot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = invoke(*arguments, tmp_path / "a.svg")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "$\\会议$.wav</text>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "mode", [("--memory", "--durations", 2, "--max-tokens", 1), ("--profile", "--exact-tokens", 1, "--trials", 1)]
)
def test_pictures_of_other_modes(
    mode: tuple[Any, ...], small_model: Path, short_wav: Path, tmp_path: Path
) -> None:
    assert invoke("bench", *mode, "-m", small_model, short_wav, "--plot", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_that_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gif, there, nowhere = tmp_path / "a.gif", tmp_path / "a.png", tmp_path / "none/a.png"
    there.write_text("mine")
    arguments = ("bench", *RTF, "--plot")
    invoke(*arguments, gif).assert_fails(2, f"error: {gif}: not a picture that can be drawn\n", ".png, .svg\n")
    invoke(*arguments, there).assert_fails(1, f"error: {there}: exists already\n")
    invoke(*arguments, nowhere).assert_fails(1, f"error: {nowhere.parent}: no such folder\n")
    assert there.read_text() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    invoke(*arguments, tmp_path / "b.png").assert_fails(
        5, "error: pictures are drawn by matplotlib (", "  install it: pip install matplotlib\n"
    )


def test_synthetic_model_beside_a_real_one(short_wav: Path) -> None:
    data = measured("--rtf", "-m", "demo", "--synthetic", "demo", short_wav, "--trials", 1)
    assert [model["model"] for model in data["models"]] == ["demo", "synthetic demo"]
    assert data["settings"]["exact_tokens"] == 64
    assert [(case["segments"], case["tokens"]) for case in data["cases"]] == [(1, 64), (1, 64)]


def test_synthetic_model_alone_reads_generated_clips(tmp_path: Path) -> None:
    """It needs no model that has been converted, and a limit that was asked for stands."""
    options = ("--synthetic", "demo", "--trials", 1, "--max-tokens", 3, "--durations", "2", "--json")
    result = invoke("bench", "--rtf", *options, env={"FUNASR_HOME": str(tmp_path)})
    (case,) = json.loads(result.stdout)["cases"]
    assert (case["case"], case["tokens"]) == ("synthetic demo, generated 2 s", 3)
