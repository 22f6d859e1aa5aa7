"""The parity checks: plain functions that raise AssertionError, also run on deliberately broken models."""

import warnings
from collections.abc import Callable

import numpy as np
from support.parity.live import Case
from support.parity.stages import Stages, load_clip, options_of, prompts_of, written_ids

from funasr_cli.decoding.text import clean_text
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.models.ctc import best_path
from funasr_cli.pipeline import Recognizer

Check = Callable[[Recognizer, Stages, Case], None]

FEATURE_TOLERANCE = 2e-3
COSINE = 0.99999
CLEAR_MARGIN = 1e-3  # relative to the logits' range; above it, the reference's choice is not a matter of rounding
LOGIT_TOLERANCE = 1e-3  # relative to the same range
LOG_PROB_TOLERANCE = 5e-3  # for log-probabilities down to -40, and down to -130 for special tokens
BATCH_TOLERANCE = 1e-4


def require(condition: bool, message: str) -> None:
    """Raise AssertionError if a condition is false. pytest explains a bare `assert` in test files only."""
    if not condition:
        raise AssertionError(message)


def worst_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the lowest cosine similarity among the rows of two (rows, width) arrays."""
    require(ours.shape == theirs.shape, f"shape {ours.shape}, expected {theirs.shape}")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    require(ours.shape == theirs.shape, f"shape {ours.shape}, expected {theirs.shape}")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def margins(logits: np.ndarray) -> np.ndarray:
    """Return how far the best logit is above the second, relative to the range: (steps, vocab) -> (steps,)."""
    second, best = np.partition(logits, -2, axis=-1)[:, -2:].T
    return (best - second) / (logits.max(-1) - logits.min(-1))


def check_values(stage: str, tolerance: float) -> Check:
    """Return a check of the model's input samples, of the filter bank or of the stacked features."""

    def check(_: Recognizer, ours: Stages, case: Case) -> None:
        own, theirs = getattr(ours, stage), case.arrays[stage]
        require(own.shape == theirs.shape, f"{stage} {own.shape}, expected {theirs.shape}")
        worst = float(np.abs(own - theirs).max())
        require(worst < tolerance, f"{stage} differ by {worst:.1e}")

    return check


def check_rows(stage: str) -> Check:
    """Return a check of the encoder's or adaptor's output, row by row."""

    def check(_: Recognizer, ours: Stages, case: Case) -> None:
        cosine = worst_cosine(getattr(ours, stage), case.arrays[stage])
        require(cosine > COSINE, f"{stage}: cosine 1 - {1 - cosine:.1e}")

    return check


def check_prompt(recognizer: Recognizer, ours: Stages, case: Case) -> None:
    """Check the token ids around the audio, the number of audio embeddings, and all prompt embeddings."""
    before, after = prompt_token_ids(
        options_of(case.job), recognizer.model.config.prompt, recognizer.model.tokenizer
    )
    begin, count = case.report["audio_begin"], case.report["audio_tokens"]
    ids = case.arrays["prompt_ids"].tolist()
    require(before == ids[:begin], f"prompt before the audio: {before}, expected {ids[:begin]}")
    require(after == ids[begin + count :], f"prompt after the audio: {after}, expected {ids[begin + count :]}")
    cosine = worst_cosine(ours.prompt, case.arrays["inputs_embeds"])
    require(cosine > COSINE, f"prompt: cosine 1 - {1 - cosine:.1e}")


def check_logits(_: Recognizer, ours: Stages, case: Case, tolerance: float = LOGIT_TOLERANCE) -> None:
    """Check teacher-forced logits: every clear choice agrees, and no logit is far off."""
    theirs = case.arrays["forced_logits"]
    require(ours.forced_logits.shape == theirs.shape, f"{ours.forced_logits.shape}, expected {theirs.shape}")
    span = float((theirs.max(-1) - theirs.min(-1)).max())
    clear = margins(theirs) > CLEAR_MARGIN
    wrong = np.flatnonzero(clear & (ours.forced_logits.argmax(-1) != theirs.argmax(-1)))
    require(clear.any() and not wrong.size, f"wrong token at steps {wrong.tolist()} of {len(theirs)}")
    worst = float(np.abs(ours.forced_logits - theirs).max()) / span
    require(worst < tolerance, f"logits differ by {worst:.1e} of their range")


def check_ctc(recognizer: Recognizer, ours: Stages, case: Case) -> None:
    """Check the log-probabilities, the best path where it is clear, its ids and their text."""
    theirs = case.arrays["ctc_log_probs"]
    ctc, vocabulary = recognizer.model.config.ctc, recognizer.model.ctc_vocabulary
    require(ours.ctc_log_probs is not None and ctc is not None, "no CTC branch")
    require(ours.ctc_log_probs.shape == theirs.shape, f"{ours.ctc_log_probs.shape}, expected {theirs.shape}")
    worst = float(np.abs(ours.ctc_log_probs - theirs).max())
    require(worst < LOG_PROB_TOLERANCE, f"CTC log-probabilities differ by {worst:.1e}")
    clear = margins(theirs) > CLEAR_MARGIN
    wrong = np.flatnonzero(clear & (ours.ctc_log_probs.argmax(-1) != theirs.argmax(-1)))
    require(not wrong.size, f"wrong CTC id in frames {wrong.tolist()}")
    ids = best_path(theirs.argmax(-1).tolist(), ctc.blank_id)
    require(ids == case.report["ctc_ids"], f"CTC ids {ids}, expected {case.report['ctc_ids']}")
    text = clean_text(vocabulary.decode(ids))
    require(text == clean_text(case.report["ctc_text"]), f"CTC text {text!r}")


def check_text(recognizer: Recognizer, _: Stages, case: Case) -> None:
    """Check freely decoded text, without the loop guard, which would not accept a random model's text.

    Random weights amplify rounding: a different text is accepted, with a warning, if the reference's choice was
    not clear at the step where the two diverge.
    """
    options = options_of(case.job)
    clip = load_clip(recognizer, case.job["audio"])
    [ours] = written_ids(recognizer, prompts_of(recognizer, [clip], options), options)
    if clean_text(recognizer.model.spell(ours)) != clean_text(case.report["text"]):
        explain_parting(case.name, ours, case.arrays["generated_ids"].tolist(), case.arrays["forced_logits"])


def explain_parting(name: str, ours: list[int], theirs: list[int], logits: np.ndarray) -> None:
    """Assert that two decodings diverge at a step without a clear choice, and warn of that step.

    `logits` predict `theirs`.
    """
    step = next((k for k, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    require(step is not None, f"{name}: ids {ours}, expected {theirs}: one continues after the other's end")
    margin = float(margins(logits)[step])
    message = f"{name}: diverged at step {step}, where the reference's margin is {margin:.1e} of the range"
    require(margin < CLEAR_MARGIN, message)
    warnings.warn(message, stacklevel=2)


CHECKS: dict[str, Check] = {
    "samples": check_values("samples", 1e-6), "features": check_values("features", FEATURE_TOLERANCE),
    "encoder": check_rows("encoder"), "adaptor": check_rows("adaptor"),
    "prompt": check_prompt, "logits": check_logits, "ctc": check_ctc, "text": check_text,
}  # fmt: skip


def check_same_row(alone: Stages, batched: Stages) -> None:
    """Check a clip that is padded or in a batch against the same clip alone and without padding."""
    for name in ("features", "encoder", "adaptor", "prompt", "forced_logits", "ctc_log_probs"):
        ours, theirs = getattr(batched, name), getattr(alone, name)
        if theirs is None:
            continue
        if not np.any(theirs):
            require(not np.any(ours), f"{name}: padding changes a row of zeros")
        else:
            error = relative_error(ours, theirs)
            require(error < BATCH_TOLERANCE, f"{name}: padding moves it by {error:.1e} of its maximum")
