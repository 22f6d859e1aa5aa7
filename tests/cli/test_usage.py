"""Every recipe in `docs/usage.md` works as described."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.media import write_media
from support.running import environment

from funasr_cli.demo import clips

PAGE = (Path(__file__).parents[2] / "docs/usage.md").read_text(encoding="utf-8")
RECIPE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {section.partition("\n")[0]: RECIPE.findall(section) for section in PAGE.split("\n## ")[1:]}
# Number of recipes per section that have their own test.
SEEN = {
    "Subtitles for a film": 3, "A folder of calls": 2, "Times of sentences and words": 1, "A pipe from ffmpeg": 2,
    "From Python": 1,
}  # fmt: skip
OTHERS = [recipe for title, found in SECTIONS.items() for recipe in found[SEEN.get(title, 0) :]]
CLIPS = clips()
FFMPEG = """#!{python}
# Stands in for ffmpeg: the recording as WAV, or as bare samples.
import os, sys
import soundfile
samples, rate_hz = soundfile.read({clip!r}, dtype="int16")
if "s16le" in sys.argv:
    os.write(1, samples.tobytes())
else:
    soundfile.write("piped.wav", samples, rate_hz)
    os.write(1, open("piped.wav", "rb").read())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the recipes use, under the same names."""
    samples = [soundfile.read(clip.path, dtype="float32")[0] for clip in CLIPS]
    soundfile.write(tmp_path / "meeting.wav", samples[0], 16000)
    write_media(tmp_path / "film.mp4", "aac", samples[3][:, None])
    (tmp_path / "calls/monday").mkdir(parents=True)
    length = min(map(len, samples[:2]))
    both = np.stack([part[:length] for part in samples[:2]], axis=1)
    soundfile.write(tmp_path / "calls/monday/0001.wav", both, 16000)
    (tmp_path / "products.txt").write_text("Kubernetes\n", encoding="utf-8")
    turns = ({"role": "user", "content": "Who speaks?"}, {"role": "assistant", "content": "A teacher."})
    (tmp_path / "turns.json").write_text(json.dumps(turns), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    ffmpeg = tmp_path / "bin/ffmpeg"
    ffmpeg.write_text(FFMPEG.format(python=sys.executable, clip=str(CLIPS[0].path)), encoding="utf-8")
    ffmpeg.chmod(0o755)
    return tmp_path


def run(language: str, recipe: str, folder: Path) -> str:
    """Run a recipe in its folder, with our commands first on PATH; return its output."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["sh", "-e", "-c", recipe] if language == "sh" else [sys.executable, "-c", recipe]
    done = subprocess.run(
        command, cwd=folder, env=environment(FUNASR_MODEL="demo", PATH=path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipes(title: str) -> list[str]:
    """Return the recipes under a heading that have their own test."""
    return [recipe for _, recipe in SECTIONS[title][: SEEN[title]]]


@pytest.mark.slow
@pytest.mark.parametrize(("language", "recipe"), OTHERS, ids=[recipe.split("\n")[0][:40] for _, recipe in OTHERS])
def test_recipe_runs(language: str, recipe: str, folder: Path) -> None:
    run(language, recipe, folder)


def test_film(folder: Path) -> None:
    whole, named, highlighted = recipes("Subtitles for a film")
    assert run("sh", whole, folder) == run("sh", named, folder) == ""
    assert {path.name for path in folder.glob("film.*")} == {"film.mp4", "film.srt", "film.vtt", "film.en.srt"}
    assert CLIPS[3].written in (folder / "film.en.srt").read_text(encoding="utf-8")
    assert run("sh", highlighted, folder) == ""
    assert "<u>" in (folder / "highlighted/film.srt").read_text(encoding="utf-8")


def test_calls(folder: Path) -> None:
    first, tables = recipes("A folder of calls")
    for _ in range(2):
        run("sh", first, folder)
        found = sorted(str(path.relative_to(folder)) for path in (folder / "transcripts").rglob("0*"))
        assert found == ["transcripts/monday/0001.ch1.json", "transcripts/monday/0001.ch2.json"]
    run("sh", tables, folder)
    assert (folder / "tables/monday/0001.tsv").is_file()


def test_times(folder: Path) -> None:
    (recipe,) = recipes("Times of sentences and words")
    whole, *words = run("sh", recipe, folder).splitlines()
    assert re.fullmatch(r"\[0:00\.\d\d-0:02\.\d\d\] (.*)", whole)[1] == CLIPS[0].written
    found = [re.fullmatch(r"\[0:0[\d.]+-0:0[\d.]+\] (\S+)", word) for word in words]
    assert " ".join(word[1] for word in found) == CLIPS[0].written
    rows = (folder / "words.tsv").read_text(encoding="utf-8").splitlines()
    assert " ".join(row.split("\t")[2] for row in rows[1:]) == CLIPS[0].written


def test_pipes(folder: Path) -> None:
    files, live = recipes("A pipe from ffmpeg")
    assert run("sh", files, folder) == f"{CLIPS[0].written}\n" * 2
    assert run("sh", live, folder) == f"{CLIPS[0].written}\n"


def test_stream_from_python(folder: Path) -> None:
    (recipe,) = recipes("From Python")
    assert re.fullmatch(r"0\.\d+ (.+)\n", run("python", recipe, folder))[1] == CLIPS[0].written
