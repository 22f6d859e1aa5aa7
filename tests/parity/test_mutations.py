"""The tests of the tests: the very checks that pass on the model fail when it is broken in a known way."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.parity import checks
from support.parity.live import Case, Pair
from support.parity.mutations import MUTATIONS
from support.parity.stages import Stages, compute_batch, compute_case, compute_unpadded, load_clip

from funasr_cli.checkpoints.load import load_model
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow
NEIGHBOURS = ("zh-2.5s", "zh-0.3s", "en-1s")
ONE_SHORT_OF_ITS_BUCKET = "stereo-44k"  # 67 rows, padded to 68
FORCED_IDS = [7, 77, 177, 277]


SHOWN_BY = {  # each check, and what it has to notice
    "features": ("no_preemphasis", "kaldis_default_window", "stacking_without_frames_in_front"),
    "encoder": (
        "positions_from_zero", "positions_interleaved", "input_not_scaled", "taps_reversed",
        "memory_without_the_values", "residual_in_encoders0", "no_after_norm", "no_tp_norm",
    ),
    "adaptor": ("adaptor_with_four_heads",),
    "prompt": ("all_rows_fed", "no_system_turn"),
    "logits": (
        "all_rows_fed", "no_system_turn", "rope_theta_of_llama", "rope_of_neighbouring_pairs", "keys_not_normed",
    ),
    "ctc": ("blank_is_zero", "positions_from_zero"),
    "text": ("all_rows_fed", "keys_not_normed"),
}  # fmt: skip
SWAPPED_EPS = {
    "encoder": "encoder_eps_of_the_adaptor", "adaptor": "adaptor_eps_of_the_encoder",
    "logits": "decoder_eps_of_the_encoder",
}  # fmt: skip


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


def check_passes(check: str, recognizer: Recognizer, case: Case) -> None:
    checks.CHECKS[check](recognizer, compute_case(recognizer, case), case)


def assert_shows(mutation: str, check: str, recognizer: Recognizer, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[mutation](patch, recognizer)
        with pytest.raises(AssertionError):
            check_passes(check, recognizer, case)


@pytest.mark.parametrize("check", checks.CHECKS)
def test_passes_as_it_is(check: str, nano: Pair) -> None:
    check_passes(check, nano.recognizer(), nano.cases["zh-2.5s"])


@pytest.mark.parametrize(("check", "mutation"), [(check, one) for check, all_ in SHOWN_BY.items() for one in all_])
def test_shows(mutation: str, check: str, nano: Pair) -> None:
    assert_shows(mutation, check, nano.recognizer(), nano.cases["zh-2.5s"])


@pytest.mark.parametrize("check", SWAPPED_EPS)
def test_swapped_eps_shows(check: str, small_variance: Pair) -> None:
    check_passes(check, small_variance.recognizer(), small_variance.cases["zh"])
    assert_shows(SWAPPED_EPS[check], check, small_variance.recognizer(), small_variance.cases["zh"])


def test_batches_pass_as_they_are(
    ctc_recognizer: Recognizer, clips: dict[str, Path], unpadded: dict[str, Stages]
) -> None:
    _same_rows(ctc_recognizer, NEIGHBOURS, clips, unpadded)
    for name in unpadded:
        _same_rows(ctc_recognizer, [name], clips, unpadded)


NOT_MASKED = [
    ("encoder_padding_not_masked", "encoder"),
    ("memory_padding_not_masked", "encoder"),
    ("adaptor_padding_not_masked", "adaptor"),
    ("decoder_padded_on_the_left", "forced_logits"),
]


@pytest.mark.parametrize(
    ("names", "mutation", "stage"),
    [
        *((NEIGHBOURS, *row) for row in [*NOT_MASKED, ("encoder_padded_on_the_left", "encoder")]),
        *(((ONE_SHORT_OF_ITS_BUCKET,), *row) for row in NOT_MASKED),
    ],
)
def test_shows_where_rows_are_padded(
    names: Sequence[str],
    mutation: str,
    stage: str,
    ctc_model: Path,
    clips: dict[str, Path],
    unpadded: dict[str, Stages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a batch, and in a single row that is padded to its bucket."""
    recognizer = Recognizer(load_model(ctc_model, "float32"))
    MUTATIONS[mutation](monkeypatch, recognizer)
    with pytest.raises(AssertionError, match=f"^{stage}: "):
        _same_rows(recognizer, names, clips, unpadded)
