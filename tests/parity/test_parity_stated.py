"""Nothing of the release is assumed that a checkpoint states otherwise."""

import warnings

import pytest
from parity import checks
from parity.live import Pair
from parity.stages import compute_case, load_clip, options_of
from parity.stated import OTHER_SHAPES, OTHER_SIZES
from support.checkpoints import CheckpointSpec

from funasr_cli.decoding.guard import LOOPING_TOKENS
from funasr_cli.decoding.text import clean_text

pytestmark = pytest.mark.slow


def test_every_stage(stated: Pair) -> None:
    recognizer = stated.recognizer()
    for case in stated.cases.values():
        ours = compute_case(recognizer, case)
        checks.check_samples(ours, case)
        checks.check_features(ours, case)
        checks.check_encoder(ours, case)
        checks.check_adaptor(ours, case)
        checks.check_prompt(recognizer, ours, case)
        checks.check_logits(ours, case)
        if recognizer.config.ctc:
            checks.check_ctc(recognizer, ours, case)
        if parting := checks.check_text(recognizer, case):
            warnings.warn(parting, stacklevel=1)


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


@pytest.mark.parametrize(
    "name",
    ["n_mels", "lfr_m", "lfr_n", "encoder_dim", "encoder_heads", "encoder_ffn_dim", "encoder_blocks",
     "encoder_tp_blocks", "kernel_size", "sanm_shift", "sample_rate_hz", "window", "frame_length_ms",
     "frame_shift_ms", "adaptor_ffn_dim", "adaptor_layers", "adaptor_heads", "adaptor_downsample",
     "use_low_frame_rate", "llm_dim", "llm_layers", "llm_heads", "llm_kv_heads", "llm_head_dim", "llm_ffn_dim",
     "llm_vocab_size", "llm_rope_theta", "llm_rms_norm_eps", "llm_tied", "llm_attention_bias", "llm_folder",
     "eos_token", "bpe_vocab_size", "ctc_ranks", "ctc_layers", "do_think", "sys_prompt", "container",
     "key_prefix"],
)  # fmt: skip
def test_is_stated_differently_somewhere(name: str) -> None:
    release = getattr(CheckpointSpec(), name)
    assert any(getattr(spec, name) != release for spec in (OTHER_SIZES, OTHER_SHAPES))
