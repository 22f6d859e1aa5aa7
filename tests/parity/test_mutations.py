"""The tests of the tests: the very checks that pass on the model fail when it is broken in a known way."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.parity import checks, mutations
from support.parity.live import Case, Pair
from support.parity.mutations import Mutation
from support.parity.stages import Stages, compute_batch, compute_case, compute_unpadded, load_clip

from funasr_cli.checkpoints.load import load_model
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow
Check = Callable[[Recognizer, Case], None]
NEIGHBOURS = ("zh-2.5s", "zh-0.3s", "en-1s")
ONE_SHORT_OF_ITS_BUCKET = "stereo-44k"  # 67 rows, padded to 68
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


@pytest.fixture(scope="module")
def unpadded(ctc_recognizer: Recognizer, clips: dict[str, Path]) -> dict[str, Stages]:
    """What each row has to come to, from a model that nobody breaks."""
    loaded = {name: load_clip(ctc_recognizer, clips[name]) for name in (*NEIGHBOURS, ONE_SHORT_OF_ITS_BUCKET)}
    return {name: compute_unpadded(ctc_recognizer, clip, FORCED_IDS) for name, clip in loaded.items()}


def _same_rows(
    recognizer: Recognizer, names: Sequence[str], clips: dict[str, Path], unpadded: dict[str, Stages]
) -> None:
    loaded = [load_clip(recognizer, clips[name]) for name in names]
    for name, row in zip(names, compute_batch(recognizer, loaded, [FORCED_IDS] * len(names)), strict=True):
        checks.check_same_row(unpadded[name], row)


@pytest.mark.parametrize("check", [features, encoder, adaptor, prompt, logits, ctc, text])
def test_passes_as_it_is(check: Check, nano: Pair) -> None:
    check(nano.recognizer(), nano.cases["zh-2.5s"])


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


@pytest.mark.parametrize("check", [encoder, adaptor, logits])
def test_small_variances_pass_as_they_are(check: Check, small_variance: Pair) -> None:
    check(small_variance.recognizer(), small_variance.cases["zh"])


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


def test_batches_pass_as_they_are(
    ctc_recognizer: Recognizer, clips: dict[str, Path], unpadded: dict[str, Stages]
) -> None:
    _same_rows(ctc_recognizer, NEIGHBOURS, clips, unpadded)
    for name in unpadded:
        _same_rows(ctc_recognizer, [name], clips, unpadded)


NOT_MASKED = [
    (mutations.encoder_padding_not_masked, "encoder"),
    (mutations.memory_padding_not_masked, "encoder"),
    (mutations.adaptor_padding_not_masked, "adaptor"),
    (mutations.decoder_padded_on_the_left, "forced_logits"),
]


@pytest.mark.parametrize(("mutation", "stage"), [*NOT_MASKED, (mutations.encoder_padded_on_the_left, "encoder")])
def test_shows_in_a_batch(
    mutation: Mutation,
    stage: str,
    ctc_model: Path,
    clips: dict[str, Path],
    unpadded: dict[str, Stages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recognizer = Recognizer(load_model(ctc_model, "float32"))
    mutation(monkeypatch, recognizer)
    with pytest.raises(AssertionError, match=f"^{stage}: "):
        _same_rows(recognizer, NEIGHBOURS, clips, unpadded)


@pytest.mark.parametrize(("mutation", "stage"), NOT_MASKED)
def test_shows_in_a_single_row_that_is_padded_to_its_bucket(
    mutation: Mutation,
    stage: str,
    ctc_model: Path,
    clips: dict[str, Path],
    unpadded: dict[str, Stages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recognizer = Recognizer(load_model(ctc_model, "float32"))
    mutation(monkeypatch, recognizer)
    with pytest.raises(AssertionError, match=f"^{stage}: "):
        _same_rows(recognizer, [ONE_SHORT_OF_ITS_BUCKET], clips, unpadded)
