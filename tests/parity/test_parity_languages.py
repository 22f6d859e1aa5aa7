"""A checkpoint without CTC tensors under MLT's name: its 31 languages, and batches on both sides."""

import pytest
from support.parity import checks
from support.parity.clips import BATCH_CLIPS, FEW_SPOKEN, SPOKEN, few_and_rest
from support.parity.live import Pair
from support.parity.stages import compute_case, load_clip, options_of, prompts_of, written_ids

from funasr_cli.decoding.text import clean_text
from funasr_cli.languages import MLT_LANGUAGES
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recognizer(mlt: Pair) -> Recognizer:
    return mlt.recognizer()


@pytest.mark.parametrize(("mlt", "name"), few_and_rest(SPOKEN, FEW_SPOKEN), indirect=["mlt"])
def test_language(name: str, mlt: Pair, recognizer: Recognizer) -> None:
    case = mlt.cases[name]
    ours = compute_case(recognizer, case)
    for check in ("prompt", "logits", "text"):
        checks.CHECKS[check](recognizer, ours, case)


def test_the_name_gives_31_languages(recognizer: Recognizer) -> None:
    assert recognizer.config.prompt.languages == MLT_LANGUAGES
    assert len(MLT_LANGUAGES) == 31
    assert recognizer.config.ctc is None


def test_batch_against_the_references_own_batch(mlt: Pair, recognizer: Recognizer) -> None:
    case = mlt.batches["batch"]
    options = options_of(case.job)
    clips = [load_clip(recognizer, path) for path in case.job["audio"]]
    ids = written_ids(recognizer, prompts_of(recognizer, clips, options), options)
    for row, name in enumerate(BATCH_CLIPS):
        if clean_text(recognizer.spell(ids[row])) != clean_text(case.report["texts"][row]):
            theirs, logits = case.arrays["generated_ids"][row].tolist(), mlt.cases[name].arrays["forced_logits"]
            checks.explain_parting(name, ids[row], theirs, logits)
