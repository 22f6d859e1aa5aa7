"""Drafted beside plain decoding on the tests' held-out clips; `make eval` takes two thousand, see the docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from accuracy.decoding import MAX_TOKENS, RECIPES, load_recipe, read_clips
from accuracy.drafts import compare

from funasr_cli.checkpoints.export import export
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.demo import MODEL
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling import scheduler

pytestmark = pytest.mark.slow
CLIPS = [
    clip for name in ("clean", "noisy") for clip in read_clips(Path(__file__).parents[1] / "data/demo" / name)
]


@pytest.fixture(scope="module", params=RECIPES[:4], ids=lambda recipe: recipe.name)
def recognizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    folder = tmp_path_factory.mktemp("drafts")
    export(MODEL, folder / "upstream")
    return load_recipe(folder / "upstream", request.param, folder)


def options(batch: int, itn: bool) -> TranscribeOptions:
    return TranscribeOptions(itn=itn, max_tokens=MAX_TOKENS, vad=False, batch_size=batch)


@pytest.mark.parametrize("itn", [False, True], ids=["words", "digits"])
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_the_text_is_the_same_in_fewer_passes(recognizer: Recognizer, batch: int, itn: bool) -> None:
    plain, drafted = compare(recognizer, CLIPS, options(batch, itn))
    same = sum(one == other for one, other in zip(plain.texts, drafted.texts, strict=True))
    assert same >= (len(CLIPS) if recognizer.loaded.dtype == "float32" else 0.99 * len(CLIPS))
    assert plain.counts["passes"] == plain.counts["tokens"]
    assert plain.counts["drafted"] == plain.counts["ctc_s"] == 0
    assert drafted.counts["passes"] * (2 if itn else 3) < plain.counts["passes"]


@pytest.mark.parametrize("batch", [1, 16])
def test_a_bad_draft_changes_nothing_but_a_few_positions(
    recognizer: Recognizer, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what has nothing to do with the clip, little is tried."""

    def other_text(text: str, *rest: object) -> CTCDraft:
        return CTCDraft("entirely different words that nobody in these recordings has ever said", *rest)

    monkeypatch.setattr(scheduler, "CTCDraft", other_text)
    plain, drafted = compare(recognizer, CLIPS, options(batch, itn=False))
    assert drafted.texts == plain.texts
    assert drafted.counts["accepted"] < drafted.counts["drafted"] // 20
    assert drafted.counts["drafted"] < 2.5 * len(CLIPS) * 8


def test_no_draft_is_made_for_a_model_without_the_branch(recognizer: Recognizer) -> None:
    deaf = replace(recognizer.config, ctc=None)
    recognizer.config, config = deaf, recognizer.config
    try:
        plain, drafted = compare(recognizer, CLIPS[:3], options(4, itn=False))
    finally:
        recognizer.config = config
    assert drafted.texts == plain.texts
    assert drafted.counts["drafted"] == drafted.counts["ctc_s"] == 0
