"""`funasr bench --rtf`: the table, the JSON, and what is refused."""

import json
from pathlib import Path

import pytest
from running import funasr, invoke

STAGES = {"read_s", "vad_s", "features_s", "encoder_s", "prefill_s", "decode_s", "first_token_s", "total_s"}
QUICK = ("--max-tokens", "4")


def test_json(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    result = funasr("bench", "--rtf", "-m", small_model, zh_wav, short_wav, "--trials", 3, "--json", *QUICK)
    data = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    clips = data.pop("clips")
    assert data.keys() == {"model", "weights", "device", "trials", "load_s", "peak_process_bytes"}
    assert (data["model"], data["trials"]) == ("Small-Nano", 3)
    assert data["load_s"] > 0
    assert data["peak_process_bytes"] > 10e6
    assert [(clip["name"], clip["duration_s"]) for clip in clips] == [(str(zh_wav), 6.0), (str(short_wav), 0.5)]
    assert [clip["tokens"] for clip in clips] == [8, 4], "of two segments, and of one"
    for clip in clips:
        assert clip.keys() == {"name", "duration_s", "stages", "tokens", "tokens_per_s", "rtf", "peak_mlx_bytes"}
        assert clip["stages"].keys() == STAGES
        assert clip["peak_mlx_bytes"] > 0
        check_sums(clip, trials=3)


def check_sums(clip: dict, trials: int) -> None:
    """What holds for any machine, however fast: parts are no more than the whole, medians lie in their range."""
    stages = clip["stages"]
    for spread in (*stages.values(), clip["rtf"], clip["tokens_per_s"]):
        assert 0 <= spread["low"] <= spread["median"] <= spread["high"]
        assert trials > 1 or spread["low"] == spread["high"]
    parts = STAGES - {"total_s", "first_token_s"}
    assert sum(stages[part]["low"] for part in parts) <= stages["total_s"]["high"]
    assert 0 < stages["first_token_s"]["low"] <= stages["total_s"]["high"]
    for kind in ("low", "median", "high"):
        assert clip["rtf"][kind] == pytest.approx(stages["total_s"][kind] / clip["duration_s"])


def test_sums_of_a_single_trial(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--rtf", "-m", small_model, short_wav, "--trials", 1, "--json", *QUICK)
    clip = json.loads(result.stdout)["clips"][0]
    check_sums(clip, trials=1)
    assert clip["tokens_per_s"]["median"] == pytest.approx(3 / clip["stages"]["decode_s"]["median"])


def test_table(small_model: Path, zh_wav: Path, short_wav: Path) -> None:
    result = funasr("bench", "--rtf", "-m", small_model, zh_wav, short_wav, "--trials", 1, *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    heading = next(line for line in lines if "clip" in line)
    for column in ("audio", "read", "encoder", "prefill", "decode", "total", "tok/s", "RTF"):
        assert column in heading
    rows = {line.split()[0]: line.split() for line in lines if ".wav" in line}
    assert rows.keys() == {"zh-6s.wav", "short.wav"}
    assert {len(row) for row in rows.values()} == {len(rows["short.wav"])}
    assert "Small-Nano, " in result.stdout
    assert "\x1b" not in result.stdout


def test_names_are_no_markup(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    clip = tmp_path / "[/red]a[bold].wav"  # in a folder that is called `[`
    clip.parent.mkdir()
    clip.write_bytes(short_wav.read_bytes())
    result = invoke("bench", "--rtf", "-m", small_model, clip, "--trials", 1, *QUICK)
    assert result.exit_code == 0
    assert "red]a[bold].wav" in result.stdout


@pytest.mark.slow
def test_generated_clips(small_model: Path) -> None:
    """Without a recording; the same ones every time."""
    runs = [
        json.loads(invoke("bench", "--rtf", "-m", small_model, "--trials", 1, "--json", *QUICK).stdout)["clips"]
        for _ in range(2)
    ]
    for clips in runs:
        assert [(clip["name"], clip["duration_s"]) for clip in clips] == [
            (f"generated {seconds} s", float(seconds)) for seconds in (5, 10, 20)
        ]


def test_bad_clip(small_model: Path, short_wav: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no recording")
    result = funasr("bench", "--rtf", "-m", small_model, short_wav, tmp_path / "a.wav", *QUICK)
    result.assert_fails(1, f"error: {tmp_path / 'a.wav'}: not audio that can be read here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--rtf"),
        (("--rtf", "--trials", "0"), "--trials"),
        (("--rtf", "--max-tokens", "0"), "error: max tokens is 0\n"),
    ],
)
def test_usage_errors(options: tuple[str, ...], message: str) -> None:
    invoke("bench", "-m", "nowhere", *options).assert_fails(2, message)


def test_language_of_another_model(small_model: Path, short_wav: Path) -> None:
    result = invoke("bench", "--rtf", "-m", small_model, short_wav, "--lang", "ko")
    result.assert_fails(2, "error: language 'ko' is not one of this model's\n")


def test_no_model(tmp_path: Path) -> None:
    invoke("bench", "--rtf", env={"FUNASR_HOME": str(tmp_path)}).assert_fails(3, "no model has been converted yet")
