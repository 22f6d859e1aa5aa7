"""Nothing of the release is assumed that a checkpoint states otherwise."""

import dataclasses

import pytest
from support.checkpoints import CheckpointSpec
from support.parity import checks
from support.parity.live import Pair
from support.parity.stages import compute_case, load_clip, options_of
from support.parity.stated import OTHER_SHAPES, OTHER_SIZES

from funasr_cli.decoding.guard import LOOPING_TOKENS
from funasr_cli.decoding.text import clean_text

pytestmark = pytest.mark.slow


def test_every_stage(stated: Pair) -> None:
    recognizer = stated.recognizer()
    for case in stated.cases.values():
        ours = compute_case(recognizer, case)
        for name, check in checks.CHECKS.items():
            if name != "ctc" or recognizer.config.ctc:
                check(recognizer, ours, case)


def test_decoding_stops_at_the_stated_token(stated: Pair) -> None:
    recognizer = stated.recognizer()
    [stop] = recognizer.config.stop_token_ids
    lengths = set()
    for case in stated.cases.values():
        ids = case.arrays["generated_ids"].tolist()
        assert ids.index(stop) == len(ids) - 1 < case.arrays["forced_ids"].size - 1  # the reference stopped there
        if len(ids) >= LOOPING_TOKENS:
            continue  # a guard may cut it
        [segment] = recognizer.transcribe(load_clip(recognizer, case.job["audio"]), options_of(case.job)).segments
        assert segment.stop_reason == "eos"
        assert segment.tokens == len(ids)
        assert segment.text == clean_text(recognizer.spell(ids))
        lengths.add(len(ids))
    assert len(lengths) > 1
    assert stop != recognizer.loaded.tokenizer.token_to_id("<|im_end|>")


def test_everything_is_stated_differently_somewhere() -> None:
    """But for the scales of the weights, and for what only tests of the release's size set."""
    release = dataclasses.asdict(CheckpointSpec())
    others = [dataclasses.asdict(spec) for spec in (OTHER_SIZES, OTHER_SHAPES)]
    same = {name for name, value in release.items() if all(other[name] == value for other in others)}
    scales = {name for name in release if name.endswith(("_gain", "_std"))}
    assert same - scales == {"qwen_bpe", "sharpness"}
