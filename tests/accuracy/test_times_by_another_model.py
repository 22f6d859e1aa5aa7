"""Word times from a small SenseVoice for the demo model's text, compared with those of its own CTC branch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.errors import refused
from support.running import invoke

import funasr_cli
from funasr_cli import demo
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Word
from tools.accuracy.decoding import read_clips
from tools.export import export

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data"
CLIPS = read_clips(DATA / "demo/clean")
LATEST_S, SHARE = 0.12, 0.95


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model without its CTC branch as `bare`, and the small SenseVoice as `sense`."""
    import torch

    folder = tmp_path_factory.mktemp("align")
    export(demo.MODEL, folder / "upstream")
    (folder / "upstream/multilingual.tiktoken").unlink()
    weights, config = folder / "upstream/model.pt", folder / "upstream/config.yaml"
    [(key, tensors)] = torch.load(weights).items()
    torch.save({key: {name: one for name, one in tensors.items() if not name.startswith("ctc")}}, weights)
    options = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump({name: one for name, one in options.items() if "ctc" not in name}))
    funasr_cli.convert(folder / "upstream", folder / "models/bare", verify="off", languages=("zh", "en", "ja"))
    funasr_cli.convert(DATA / "sense_voice_small", folder / "models/sense", verify="off")
    return folder / "models"


def words(recognizer: Recognizer, path: Path, **options: Any) -> list[Word]:
    transcript = recognizer.transcribe(path, vad=False, word_times=True, **options)
    return [word for segment in transcript.segments for word in segment.words]


@pytest.mark.parametrize(("itn", "least"), [(False, 300), (True, 220)])
def test_words_start_where_the_own_branch_has_them(models: Path, itn: bool, least: int) -> None:
    own, other = funasr_cli.load("demo"), funasr_cli.load(models / "bare", align_with=models / "sense")
    late_s, estimated = [], []
    for clip in CLIPS:
        pair = words(own, clip.path, itn=itn), words(other, clip.path, itn=itn)
        assert len(pair[0]) == len(pair[1])
        for one, two in zip(*pair, strict=True):
            if one.text == two.text:
                late_s.append(two.start_s - one.start_s)
            estimated.append((two.estimated, two.score is None))
    assert len(late_s) >= least
    assert np.mean(np.abs(late_s) <= LATEST_S) >= SHARE
    assert all(is_estimated == unscored for is_estimated, unscored in estimated)


def test_words_without_a_match_are_estimated(models: Path) -> None:
    """The text contains more than the speech: an earlier text that the first segment continues."""
    other = funasr_cli.load(models / "bare", align_with=models / "sense")
    found = words(other, CLIPS[0].path, prev_text="Quartz sphinx judge vow", language=CLIPS[0].language)
    unheard = [word for word in found if word.text in ("Quartz", "sphinx", "judge", "vow")]
    assert unheard
    assert all(word.estimated for word in unheard)


def test_from_the_command_line(models: Path, tmp_path: Path) -> None:
    common = ("transcribe", "-q", "-m", models / "bare", CLIPS[0].path)
    result = invoke(*common, "--align-with", models / "sense", "-f", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["times"] == "word"
    result = invoke(*common, "-f", "json", "--align-with", "sensevoice", env={"FUNASR_HOME": str(tmp_path)})
    result.assert_error(3, "model-missing", "funasr convert sensevoice")


def test_a_language_that_it_lacks(models: Path, tmp_path: Path) -> None:
    """Vietnamese is supported by some Fun-ASR-Nano models, but not by SenseVoiceSmall."""
    shutil.copytree(models / "bare", tmp_path / "bare")
    config = tmp_path / "bare/config.json"
    stated = json.loads(config.read_text(encoding="utf-8"))
    stated["prompt"]["languages"] += ["vi"]
    config.write_text(json.dumps(stated), encoding="utf-8")
    recognizer = funasr_cli.load(tmp_path / "bare", align_with=models / "sense")
    with refused("language-unknown", "vi"):
        recognizer.transcribe(CLIPS[0].path, language="vi", word_times=True)
    command = ("transcribe", "-m", tmp_path / "bare", CLIPS[0].path, "-f", "json", "--lang", "vi")
    invoke(*command, "--align-with", models / "sense").assert_error(2, "language-unknown", "vi")
