"""The checkpoint's configuration takes precedence over every default of the release."""

import dataclasses
from pathlib import Path

import pytest
from support.checkpoints import CheckpointSpec
from support.parity import checks
from support.parity.live import Pair, run_pair
from support.parity.stages import compute_case, load_clip, options_of

from funasr_cli.decoding.stopping import LOOPING_TOKENS
from funasr_cli.decoding.text import clean_text

pytestmark = pytest.mark.slow

# Few frames per second, all rows in the prompt, an empty think block, an untied head, a fine-tune's container.
OTHER_SIZES = CheckpointSpec(
    encoder_dim=48, encoder_heads=3, encoder_ffn_dim=80, encoder_blocks=6, encoder_tp_blocks=3, kernel_size=7,
    sanm_shift=2, n_mels=40, lfr_m=5, lfr_n=4, adaptor_ffn_dim=96, adaptor_layers=3, adaptor_heads=4,
    use_low_frame_rate=False, llm_dim=96, llm_layers=5, llm_heads=6, llm_kv_heads=3, llm_head_dim=24,
    llm_ffn_dim=160, llm_vocab_size=1500, llm_rope_theta=5e3, llm_rms_norm_eps=1e-3, llm_tied=False,
    eos_token="<|object_ref_end|>", eos_gain=4.0, bpe_vocab_size=700, do_think=False, sys_prompt=False,
    container="model", key_prefix="module.", dtype="bfloat16", llm_folder="Qwen3-other", seed=1,
)  # fmt: skip

# Telephone speech, a first layer with a residual (its width does not change), stacked frames in the adaptor,
# biases in the decoder's attention, a separate CTC branch.
OTHER_SHAPES = CheckpointSpec(
    encoder_dim=64, encoder_heads=8, encoder_ffn_dim=96, encoder_blocks=3, encoder_tp_blocks=0, kernel_size=8,
    sanm_shift=1, sample_rate_hz=8000, window="hanning", frame_length_ms=32, frame_shift_ms=8, n_mels=16,
    lfr_m=4, lfr_n=3, adaptor_downsample=2, adaptor_heads=2, adaptor_layers=1, llm_layers=2, llm_heads=4,
    llm_kv_heads=4, llm_attention_bias=True, eos_token="<|box_end|>", eos_gain=3.5, bpe_vocab_size=760,
    with_ctc=True, ctc_ranks=640, ctc_ffn_dim=48, ctc_layers=2, do_think=True,
    sys_prompt=False, container=None, dtype="float32", llm_folder="Qwen3-telephone", seed=4,
)  # fmt: skip

STATED = {"other-sizes": OTHER_SIZES, "other-shapes": OTHER_SHAPES}


@pytest.fixture(scope="session", params=STATED)
def stated(
    request: pytest.FixtureRequest, clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    cases = [{"name": name, "audio": clips[name], "language": "英文"} for name in ("zh-2.5s", "en-1s", "zh-0.1s")]
    return run_pair(tmp_path_factory, f"Fun-ASR-Nano-{request.param}", STATED[request.param], cases)


def test_every_stage(stated: Pair) -> None:
    recognizer = stated.recognizer()
    for case in stated.cases.values():
        ours = compute_case(recognizer, case)
        for name, check in checks.CHECKS.items():
            if name != "ctc" or recognizer.model.config.ctc:
                check(recognizer, ours, case)


def test_decoding_stops_at_the_stated_token(stated: Pair) -> None:
    recognizer = stated.recognizer()
    [stop] = recognizer.model.config.stop_token_ids
    lengths = set()
    for case in stated.cases.values():
        ids = case.arrays["generated_ids"].tolist()
        assert ids.index(stop) == len(ids) - 1 < case.arrays["forced_ids"].size - 1  # the reference stopped there
        if len(ids) >= LOOPING_TOKENS:
            continue  # the loop guard may cut it
        [segment] = recognizer.transcribe(load_clip(recognizer, case.job["audio"]), options_of(case.job)).segments
        assert segment.stop_reason == "eos"
        assert segment.tokens == len(ids)
        assert segment.text == clean_text(recognizer.model.spell(ids))
        lengths.add(len(ids))
    assert len(lengths) > 1
    assert stop != recognizer.model.tokenizer.token_to_id("<|im_end|>")


def test_every_field_differs_from_the_release_in_some_checkpoint() -> None:
    """Exceptions: the scales of the weights, and fields that only tests of the release's size set."""
    release = dataclasses.asdict(CheckpointSpec())
    others = [dataclasses.asdict(spec) for spec in STATED.values()]
    same = {name for name, value in release.items() if all(other[name] == value for other in others)}
    scales = {name for name in release if name.endswith(("_gain", "_std"))}
    assert same - scales == {"sharpness"}
