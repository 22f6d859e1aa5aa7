"""Paraformer compared with FunASR's own code: stages, fires, hotwords, text and times, for each layout."""

from pathlib import Path

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.paraformer import RELEASE, RELEASE_TOKENS, ParaformerSpec
from support.parity import paraformer as parity
from support.parity.checks import relative_error
from support.parity.clips import BATCH_CLIPS, CLIP_NAMES
from support.parity.paraformer import CHECKS, FEW, KINDS, Job, References, cases_of

from funasr_cli.options import TranscribeOptions

pytestmark = pytest.mark.slow

BATCH_TOLERANCE = 1e-5
LESSON_TEXT = "你好hello AB世界microphone12"


@pytest.fixture(scope="module")
def everything(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, References]:
    """A few clips in each layout, and each layout taught a sentence."""
    return parity.run_few(tmp_path_factory, clips)


@pytest.fixture(params=KINDS)
def references(request: pytest.FixtureRequest, everything: dict[str, References]) -> References:
    """A few clips in one layout."""
    return everything[request.param]


def check_everything(references: References, engine: str = "mlx") -> int:
    """Check every stage of every clip; return how many texts were compared as a whole."""
    model = parity.load(references.model, engine)
    for row in references.rows.values():
        [ours] = parity.compute(model, [row])
        for check in CHECKS.values():
            check(model, ours, row)
    return sum(
        bool(row.report["ids"]) and bool((row.margins > parity.CLOSE).all()) for row in references.rows.values()
    )


def test_every_stage(references: References) -> None:
    assert check_everything(references) > len(references.rows) / 2
    counts = [len(row.report["ids"]) for row in references.rows.values()]
    assert max(counts) > 10


@pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
def test_every_stage_on_the_native_engine(references: References) -> None:
    assert check_everything(references, "native") > len(references.rows) / 2


def test_a_row_alone_equals_a_row_in_a_batch(references: References) -> None:
    """Upstream's do not: compare with its results for single clips."""
    model, rows = parity.load(references.model), [references.rows[name] for name in BATCH_CLIPS]
    for row, ours in zip(rows, parity.compute(model, rows), strict=True):
        [alone] = parity.compute(model, [row])
        for stage in ("encoder", "decoded", "logits", "fine_weights"):
            one, other = getattr(ours, stage), getattr(alone, stage)
            assert one is None or not one.size or relative_error(one, other) < BATCH_TOLERANCE
        assert np.abs(ours.fired.weights - alone.fired.weights).max() < BATCH_TOLERANCE
        assert ours.fired.fires.tolist() == alone.fired.fires.tolist()
        assert (ours.text, ours.times_s) == (alone.text, alone.times_s)
        for check in CHECKS.values():
            check(model, ours, row)


def test_hotwords_change_tokens(everything: dict[str, References]) -> None:
    rows = everything["seaco"].rows
    pairs = [(rows[f"{name}-hotwords"], rows[name]) for name in FEW[::2]]
    changed = [np.not_equal(row.report["ids"], plain.report["ids"]) for row, plain in pairs]
    share = np.concatenate(changed).mean()
    assert 0.1 < share < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_taught_sentence(kind: str, everything: dict[str, References]) -> None:
    taught = everything[f"{kind}-taught"]
    row, model = taught.rows["clip"], parity.load(taught.model)
    assert row.report["plain"] == LESSON_TEXT
    has_times = kind != "plain"
    segment = parity.segment_of(model, row, TranscribeOptions(word_times=has_times, confidence=True))
    assert segment.text == LESSON_TEXT
    assert "".join(score.text for score in segment.scores) == LESSON_TEXT
    assert all(score.probability > 0.99 for score in segment.scores)
    if has_times:
        words = row.report["text"].split()  # upstream writes spaces if there are times
        assert [word.text for word in segment.words] == [*words[:-3], "microphone12"]
        times_s = [(begin / 1000, end / 1000) for begin, end in row.report["words_ms"]]
        times_s[-3:] = [(times_s[-3][0], times_s[-1][1])]
        for word, (begin_s, end_s) in zip(segment.words, times_s, strict=True):
            assert word.start_s - segment.start_s == pytest.approx(max(0, begin_s), abs=2e-3)
            assert word.end_s - segment.start_s == pytest.approx(
                min(end_s, segment.end_s - segment.start_s), abs=2e-3
            )


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_all_clips(kind: str, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Texts of at least 20 clips are identical."""
    jobs = {kind: Job(ParaformerSpec(kind), cases_of(kind, clips, CLIP_NAMES))}
    found = parity.run_references(tmp_path_factory, f"{kind}-everything", jobs)
    assert check_everything(found[kind]) >= 20


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_release(
    kind: str, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = ParaformerSpec(kind, RELEASE, 16, RELEASE_TOKENS)
    jobs = {kind: Job(spec, cases_of(kind, clips, ("zh-2.5s", "en-4.3s")))}
    check_everything(parity.run_references(tmp_path_factory, f"{kind}-release", jobs)[kind])


@pytest.mark.full
def test_texts_at_the_size_of_the_release(
    clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A token may differ only where two are nearly as likely, and none does in 20 clips.

    Weights stored in bfloat16 change the logits more than that, and so the text of some of the clips.
    """
    jobs = {
        "plain": Job(ParaformerSpec("plain", RELEASE, 16, RELEASE_TOKENS), cases_of("plain", clips, CLIP_NAMES))
    }
    [references] = parity.run_references(tmp_path_factory, "plain-release-texts", jobs).values()
    for engine in ["mlx", *(["native"] if LIBRARY else [])]:
        model, same = parity.load(references.model, engine), 0
        for row in references.rows.values():
            [ours] = parity.compute(model, [row])
            CHECKS["encoder"](model, ours, row)
            assert ours.fired.fires.tolist() == np.flatnonzero(row.arrays["peaks"] >= 1).tolist()
            if ids := row.report["ids"]:
                errors = np.abs(ours.logits - row.arrays["logits"]).max(axis=-1)  # (tokens,)
                differing = ours.reading.token_ids != ids
                assert (row.margins <= 2 * errors)[differing].all()
                same += ours.text == row.report["plain"]
        assert same >= 20
