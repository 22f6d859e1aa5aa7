"""Decoding with and without drafts on the tests' held-out clips. `make eval` uses two thousand, see the docs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.native import LIBRARY

from funasr_cli.decoding import cost
from funasr_cli.decoding.cost import RunCost
from funasr_cli.decoding.draft import CTCDraft
from funasr_cli.demo import MODEL
from funasr_cli.families.fun_asr_nano import session
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from tools.accuracy.decoding import MAX_TOKENS, RECIPES, Recipe, load_recipe, read_clips
from tools.accuracy.drafts import compare
from tools.export import export

pytestmark = pytest.mark.slow
CLIPS = [
    clip for name in ("clean", "noisy") for clip in read_clips(Path(__file__).parents[1] / "data/demo" / name)
]


EXACT = [(RECIPES[0], batch, itn) for batch in (1, 2, 5, 16) for itn in (False, True)]
LONG = [*EXACT[1:-2], *((recipe, 16, True) for recipe in RECIPES[1:4])]  # quantized ones take minutes on a CPU
NATIVE = (
    [recipe for recipe in RECIPES if (recipe.engine, recipe.dtype) == ("native", "float32")] if LIBRARY else []
)
LONG += [(recipe, 16, False) for recipe in NATIVE]
CASES = [EXACT[0], *EXACT[-2:], *(pytest.param(*case, marks=pytest.mark.full) for case in LONG)]


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recognizer]:
    folder = tmp_path_factory.mktemp("drafts")
    export(MODEL, folder / "upstream")
    return {recipe.name: load_recipe(folder / "upstream", recipe, folder) for recipe in [*RECIPES[:4], *NATIVE]}


@pytest.fixture(scope="module")
def exact(recognizers: dict[str, Recognizer]) -> Recognizer:
    return recognizers["float32"]


def options(batch: int, itn: bool) -> TranscribeOptions:
    return TranscribeOptions(itn=itn, max_tokens=MAX_TOKENS, vad=False, batch_size=batch)


@pytest.mark.parametrize(("recipe", "batch", "itn"), CASES, ids=lambda value: getattr(value, "name", None))
def test_the_text_is_the_same_in_fewer_passes(
    recognizers: dict[str, Recognizer], recipe: Recipe, batch: int, itn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = recipe is RECIPES[0] or recipe in NATIVE
    monkeypatch.setattr(cost, "drafts_pay", lambda llm, rows: True)
    if not exact:  # on a CPU, drafts do not pay in these types, so hardly any would be tried
        monkeypatch.setattr(RunCost, "of", lambda llm: RunCost(128))
    plain, drafted = compare(recognizers[recipe.name], CLIPS, options(batch, itn))
    same = sum(one == other for one, other in zip(plain.texts, drafted.texts, strict=True))
    assert same >= (len(CLIPS) if exact else 0.98 * len(CLIPS))
    assert plain.counts["decoder_calls"] == plain.counts["tokens"]
    assert plain.counts["drafted"] == plain.counts["ctc_s"] == 0
    assert drafted.counts["decoder_calls"] * (1.5 if itn else 3) < plain.counts["decoder_calls"]


def test_on_a_cpu_drafts_are_not_tried_where_they_do_not_pay(
    recognizers: dict[str, Recognizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor made, with the CTC branch. If they were, hardly any would be tried."""
    plain, drafted = compare(recognizers["8-bit"], CLIPS[:10], options(16, itn=True))
    assert drafted.texts == plain.texts
    assert drafted.counts["drafted"] == drafted.counts["ctc_s"] == 0
    monkeypatch.setattr(cost, "drafts_pay", lambda llm, rows: True)
    _, drafted = compare(recognizers["8-bit"], CLIPS[:10], options(16, itn=True))
    assert drafted.texts == plain.texts
    assert drafted.counts["drafted"] <= 10


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.full), 16])
def test_little_of_a_bad_draft_is_tried(exact: Recognizer, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_text(text: str, *rest: Any) -> CTCDraft:
        return CTCDraft("entirely different words that do not occur in any of these recordings", *rest)

    monkeypatch.setattr(session, "CTCDraft", other_text)
    plain, drafted = compare(exact, CLIPS, options(batch, itn=False))
    assert drafted.texts == plain.texts
    assert drafted.counts["accepted"] < drafted.counts["drafted"] // 20
    assert drafted.counts["drafted"] < 16 * len(CLIPS)  # less than one proposal per clip, and less than a prompt


def test_no_draft_is_made_for_a_model_without_the_branch(
    exact: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact.model, "config", replace(exact.model.config, ctc=None))
    plain, drafted = compare(exact, CLIPS[:3], options(4, itn=False))
    assert drafted.texts == plain.texts
    assert drafted.counts["drafted"] == drafted.counts["ctc_s"] == 0
