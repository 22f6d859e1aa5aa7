"""The tests of the tests: the very checks that pass on the model fail when it is broken in a known way."""

from collections.abc import Callable
from pathlib import Path

import pytest
from parity import checks, mutations
from parity.live import Case, Pair
from parity.mutations import Mutation
from parity.stages import compute_batch, compute_case, load_clip

from funasr_cli.checkpoints.load import load_model
from funasr_cli.pipeline import Recognizer

Check = Callable[[Recognizer, Case], None]
NEIGHBOURS = ("zh-2.5s", "zh-0.3s", "en-1s")
FORCED_IDS = [7, 77, 177, 277]


def features(recognizer: Recognizer, case: Case) -> None:
    checks.check_features(compute_case(recognizer, case), case)


def encoder(recognizer: Recognizer, case: Case) -> None:
    checks.check_encoder(compute_case(recognizer, case), case)


def adaptor(recognizer: Recognizer, case: Case) -> None:
    checks.check_adaptor(compute_case(recognizer, case), case)


def prompt(recognizer: Recognizer, case: Case) -> None:
    checks.check_prompt(recognizer, compute_case(recognizer, case), case)


def logits(recognizer: Recognizer, case: Case) -> None:
    checks.check_logits(compute_case(recognizer, case), case)


def ctc(recognizer: Recognizer, case: Case) -> None:
    checks.check_ctc(recognizer, compute_case(recognizer, case), case)


def text(recognizer: Recognizer, case: Case) -> None:
    checks.check_text(recognizer, case)


def _same_rows(recognizer: Recognizer, clips: dict[str, Path]) -> None:
    loaded = [load_clip(recognizer, clips[name]) for name in NEIGHBOURS]
    batch = compute_batch(recognizer, loaded, [FORCED_IDS] * len(loaded))
    for clip, row in zip(loaded, batch, strict=True):
        [alone] = compute_batch(recognizer, [clip], [FORCED_IDS])
        checks.check_same_row(alone, row)


@pytest.mark.slow
@pytest.mark.parametrize("check", [features, encoder, adaptor, prompt, logits, ctc, text])
def test_passes_as_it_is(check: Check, nano: Pair) -> None:
    check(nano.recognizer(), nano.cases["zh-2.5s"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutation", "check"),
    [
        (mutations.no_preemphasis, features),
        (mutations.kaldis_default_window, features),
        (mutations.stacking_without_frames_in_front, features),
        (mutations.positions_from_zero, encoder),
        (mutations.positions_interleaved, encoder),
        (mutations.input_not_scaled, encoder),
        (mutations.taps_reversed, encoder),
        (mutations.memory_without_the_values, encoder),
        (mutations.residual_in_encoders0, encoder),
        (mutations.no_after_norm, encoder),
        (mutations.no_tp_norm, encoder),
        (mutations.adaptor_with_four_heads, adaptor),
        (mutations.all_rows_fed, prompt),
        (mutations.all_rows_fed, logits),
        (mutations.all_rows_fed, text),
        (mutations.no_system_turn, prompt),
        (mutations.no_system_turn, logits),
        (mutations.rope_theta_of_llama, logits),
        (mutations.rope_of_neighbouring_pairs, logits),
        (mutations.keys_not_normed, logits),
        (mutations.keys_not_normed, text),
        (mutations.blank_is_zero, ctc),
        (mutations.positions_from_zero, ctc),
    ],
)
def test_shows(mutation: Mutation, check: Check, nano: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = nano.recognizer()
    mutation(monkeypatch, recognizer)
    with pytest.raises(AssertionError):
        check(recognizer, nano.cases["zh-2.5s"])


@pytest.mark.slow
@pytest.mark.parametrize("check", [encoder, adaptor, logits])
def test_small_variances_pass_as_they_are(check: Check, small_variance: Pair) -> None:
    check(small_variance.recognizer(), small_variance.cases["zh"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutation", "check"),
    [
        (mutations.encoder_eps_of_the_adaptor, encoder),
        (mutations.adaptor_eps_of_the_encoder, adaptor),
        (mutations.decoder_eps_of_the_encoder, logits),
    ],
)
def test_swapped_eps_shows(
    mutation: Mutation, check: Check, small_variance: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = small_variance.recognizer()
    mutation(monkeypatch, recognizer)
    with pytest.raises(AssertionError):
        check(recognizer, small_variance.cases["zh"])


def test_batches_pass_as_they_are(ctc_recognizer: Recognizer, clips: dict[str, Path]) -> None:
    _same_rows(ctc_recognizer, clips)


@pytest.mark.parametrize(
    ("mutation", "stage"),
    [
        (mutations.encoder_padded_on_the_left, "encoder"),
        (mutations.encoder_padding_not_masked, "encoder"),
        (mutations.memory_padding_not_masked, "encoder"),
        (mutations.adaptor_padding_not_masked, "adaptor"),
        (mutations.decoder_padded_on_the_right, "forced_logits"),
        (mutations.decoder_padding_not_masked, "forced_logits"),
    ],
)
def test_shows_in_a_batch(
    mutation: Mutation, stage: str, ctc_model: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer(load_model(ctc_model, "float32"))
    mutation(monkeypatch, recognizer)
    with pytest.raises(AssertionError, match=f"^{stage}: "):
        _same_rows(recognizer, clips)
