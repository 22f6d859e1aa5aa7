"""Every clip through every stage, and every language, compared with the reference on the same checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.parity import checks
from support.parity.clips import BATCH_CLIPS, CLIP_NAMES, FEW_CLIPS, FEW_SPOKEN, SPOKEN, few_at_first
from support.parity.dialogues import PROMPTS
from support.parity.live import Case, Pair
from support.parity.stages import Stages, compute_case, load_clip, options_of, prompts_of, written_ids

from funasr_cli.decoding.mlx_batch import bucketed
from funasr_cli.decoding.stopping import LOOPING_TOKENS
from funasr_cli.decoding.text import clean_text
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.languages import MLT_LANGUAGES
from funasr_cli.options import MLX, NATIVE
from funasr_cli.pipeline import Recognizer

pytestmark = pytest.mark.slow
NATIVE_LOGIT_TOLERANCE = 4e-3  # relative to their range; measured on all clips: up to 2.2e-3
needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
every_clip = pytest.mark.parametrize("name", few_at_first(CLIP_NAMES, FEW_CLIPS))


@pytest.fixture(scope="module")
def recognizer(nano: Pair) -> Recognizer:
    return nano.recognizer()


@pytest.fixture
def case(name: str, nano: Pair, request: pytest.FixtureRequest) -> Case:
    """The reference's results for a clip."""
    return (nano if name in nano.cases else request.getfixturevalue("nano_rest")).cases[name]


@pytest.fixture(scope="module")
def computed() -> dict[str, Stages]:
    """Our own stages by clip, filled as they are computed."""
    return {}


@every_clip
@pytest.mark.parametrize("check", checks.CHECKS)
def test_stage(check: str, case: Case, computed: dict[str, Stages], recognizer: Recognizer) -> None:
    assert len(case.arrays["forced_ids"]) == 64
    if case.name not in computed:
        computed[case.name] = compute_case(recognizer, case)
    checks.CHECKS[check](recognizer, computed[case.name], case)


@pytest.fixture(scope="module")
def native(nano: Pair) -> Recognizer:
    """The same checkpoint, its decoder computed by the C library in float32."""
    return nano.recognizer(NATIVE)


@every_clip
@needs_library
def test_native_engine(case: Case, native: Recognizer) -> None:
    """Its keys and values are float16, so logits are less exact than MLX's, but choices and texts are equal."""
    ours = compute_case(native, case)
    checks.check_prompt(native, ours, case)
    checks.check_logits(native, ours, case, NATIVE_LOGIT_TOLERANCE)
    checks.check_text(native, ours, case)


@every_clip
def test_transcript(case: Case, recognizer: Recognizer) -> None:
    """The whole pipeline returns the text of these ids. They are too few for the loop guard to cut them."""
    if case.name == "zh-0.02s":
        return  # less than any word
    clip = load_clip(recognizer, case.job["audio"])
    options = replace(options_of(case.job), max_tokens=LOOPING_TOKENS // 2)
    segments = recognizer.transcribe(clip, options).segments
    [ids] = written_ids(recognizer, prompts_of(recognizer, [clip], options), options)
    [segment] = segments
    assert (segment.start_s, segment.end_s, segment.tokens) == (0, clip.duration_s, len(ids))
    assert segment.text == clean_text(recognizer.model.spell(ids))


@every_clip
def test_ctc_reading(case: Case, recognizer: Recognizer) -> None:
    """The branch as the pipeline uses it: labels, text, posteriors of some labels, and text back to labels."""
    ctc, vocabulary = recognizer.model.config.ctc, recognizer.model.ctc_vocabulary
    clip = load_clip(recognizer, case.job["audio"])
    [reading] = recognizer.model.ctc_readings(recognizer.model.encoded([recognizer.model.features(clip.samples)]))
    theirs = case.arrays["ctc_log_probs"]
    clear = checks.margins(theirs) > checks.CLEAR_MARGIN
    assert len(reading.frame_ids) == len(theirs)
    assert (np.array(reading.frame_ids) == theirs.argmax(-1))[clear].all()
    if clear.all():
        assert reading.token_ids == case.report["ctc_ids"]
        assert reading.text == clean_text(case.report["ctc_text"])
    labels = [*sorted(set(case.report["ctc_ids"]))[:7], ctc.blank_id, 0]
    assert np.abs(reading.log_probs(labels) - theirs[:, labels]).max() < checks.LOG_PROB_TOLERANCE
    assert vocabulary.encode(case.report["ctc_text"]) == case.report["ctc_text_ids"]


def test_the_cases_cover_rows_with_padding_and_without(nano: Pair) -> None:
    """Up to 32 rows, every length has its own bucket, so there is no padding."""
    lengths = [len(case.arrays[array]) for case in nano.cases.values() for array in ("features", "inputs_embeds")]
    assert sum(length < bucketed(length) for length in lengths) >= 3
    assert sum(32 < length == bucketed(length) for length in lengths) >= 3


def test_the_cases_cover_the_options(nano: Pair) -> None:
    jobs = [case.job for case in nano.cases.values()]
    assert {job["language"] for job in jobs} == {None, "中文", "英文", "日文"}
    assert {(bool(job["hotwords"]), job["itn"]) for job in jobs} == {(a, b) for a in (0, 1) for b in (0, 1)}


def test_blanks_and_tokens_share_the_frames(nano: Pair) -> None:
    best = [case.arrays["ctc_log_probs"].argmax(-1) for case in nano.cases.values()]
    blank = nano.recognizer().model.config.ctc.blank_id
    assert 0.1 < (np.concatenate(best) == blank).mean() < 0.9


# --- a checkpoint with MLT's name and without CTC tensors: its languages, and batches on both sides ---


@pytest.fixture(scope="module")
def mlt_recognizer(mlt: Pair) -> Recognizer:
    return mlt.recognizer()


@pytest.mark.parametrize("name", few_at_first(SPOKEN, FEW_SPOKEN))
def test_language(name: str, mlt: Pair, mlt_recognizer: Recognizer, request: pytest.FixtureRequest) -> None:
    case = (mlt if name in mlt.cases else request.getfixturevalue("mlt_rest")).cases[name]
    ours = compute_case(mlt_recognizer, case)
    for check in ("prompt", "logits", "text"):
        checks.CHECKS[check](mlt_recognizer, ours, case)


@pytest.mark.parametrize("engine", [MLX, pytest.param(NATIVE, marks=needs_library)])
def test_dialogue(mlt: Pair, engine: str) -> None:
    """An instruction after an earlier turn, through both engines; upstream's own `generate` writes the text."""
    recognizer, case = mlt.recognizer(engine), mlt.cases["dialogue"]
    ours = compute_case(recognizer, case)
    checks.check_prompt(recognizer, ours, case)
    checks.check_logits(recognizer, ours, case, NATIVE_LOGIT_TOLERANCE)
    checks.check_text(recognizer, ours, case)


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_prompts_of_dialogues(number: int, mlt: Pair, mlt_recognizer: Recognizer) -> None:
    """Token for token, for every form of the prompt; the audio's places are 0 upstream."""
    model, case, prompt = mlt_recognizer.model, mlt.cases["dialogue"], PROMPTS[number]
    conf, theirs = prompt["dataset_conf"], case.report["prompts"][number]
    config = replace(model.config.prompt, system_turn=conf["sys_prompt"], empty_think=not conf["do_think"])
    before, after = prompt_token_ids(options_of(prompt), config, model.tokenizer)
    assert [*before, *[0] * case.report["audio_tokens"], *after] == theirs


def test_the_name_gives_31_languages(mlt_recognizer: Recognizer) -> None:
    assert mlt_recognizer.model.config.prompt.languages == MLT_LANGUAGES
    assert len(MLT_LANGUAGES) == 31
    assert mlt_recognizer.model.config.ctc is None


def test_batch_against_the_references_own_batch(mlt: Pair, mlt_recognizer: Recognizer) -> None:
    case = mlt.cases["batch"]
    options = options_of(case.job)
    clips = [load_clip(mlt_recognizer, path) for path in case.job["audio"]]
    ids = written_ids(mlt_recognizer, prompts_of(mlt_recognizer, clips, options), options)
    for row, name in enumerate(BATCH_CLIPS):
        if clean_text(mlt_recognizer.model.spell(ids[row])) != clean_text(case.report["texts"][row]):
            theirs, logits = case.arrays["generated_ids"][row].tolist(), mlt.cases[name].arrays["forced_logits"]
            checks.explain_parting(name, ids[row], theirs, logits)
