"""What options refuse, and in which words."""

import pytest

from funasr_cli.errors import ExitCode, UsageError
from funasr_cli.options import MAX_HOTWORDS, ConvertOptions, TranscribeOptions

TEMPERATURE_HINT = "add --temperature, for example 0.6"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"max_tokens": 0}, "max tokens is 0", "it must be at least 1"),
        ({"max_tokens": -5}, "max tokens is -5", "it must be at least 1"),
        ({"hotwords": ("a",) * (MAX_HOTWORDS + 1)}, "201 hotwords", "the limit is 200"),
        ({"hotwords": "Kennedy"}, "hotwords is a text", "pass a tuple of words"),
        ({"temperature": -0.1}, "temperature is -0.1", "it must be 0 (greedy) or above"),
        ({"temperature": float("nan")}, "temperature is nan", "it must be 0 (greedy) or above"),
        ({"temperature": float("inf")}, "temperature is inf", "it must be 0 (greedy) or above"),
        ({"top_p": 0.0, "temperature": 1.0}, "top-p is 0.0", "it must be above 0 and at most 1"),
        ({"top_p": 1.01, "temperature": 1.0}, "top-p is 1.01", "it must be above 0 and at most 1"),
        ({"top_p": float("nan"), "temperature": 1.0}, "top-p is nan", "it must be above 0 and at most 1"),
        ({"top_k": 0, "temperature": 1.0}, "top-k is 0", "it must be at least 1"),
        ({"seed": -1, "temperature": 1.0}, "seed is -1", "it must be at least 0 and below 2**63"),
        ({"seed": 2**63, "temperature": 1.0}, f"seed is {2**63}", "it must be at least 0 and below 2**63"),
        ({"vad_threshold": 0.0}, "VAD threshold is 0.0", "it must be between 0 and 1"),
        ({"vad_threshold": 1.0}, "VAD threshold is 1.0", "it must be between 0 and 1"),
        ({"vad_threshold": float("nan")}, "VAD threshold is nan", "it must be between 0 and 1"),
        ({"min_pause_s": 0.09}, "min pause is 0.09 s", "it must be 0.1 to 10 s"),
        ({"min_pause_s": 10.1}, "min pause is 10.1 s", "it must be 0.1 to 10 s"),
        ({"min_pause_s": float("nan")}, "min pause is nan s", "it must be 0.1 to 10 s"),
        ({"join_s": -1.0}, "join is -1.0 s", "it must be 0 to max segment"),
        ({"join_s": 30.1}, "join is 30.1 s", "it must be 0 to max segment"),
        (
            {"join_s": 6.0, "max_segment_s": 5.0},
            "join is 6.0 s",
            "it must be 0 to max segment",
        ),
        ({"join_s": float("nan")}, "join is nan s", "it must be 0 to max segment"),
        ({"max_segment_s": 1.9}, "max segment is 1.9 s", "it must be 2 to 300 s"),
        ({"max_segment_s": 301.0}, "max segment is 301.0 s", "it must be 2 to 300 s"),
        ({"max_segment_s": -5.0}, "max segment is -5.0 s", "it must be 2 to 300 s"),
        ({"max_segment_s": float("nan")}, "max segment is nan s", "it must be 2 to 300 s"),
        ({"batch_size": 0}, "batch size is 0", "it must be at least 1"),
        ({"batch_size": -1}, "batch size is -1", "it must be at least 1"),
        ({"top_p": 0.9}, "top-p without a temperature", TEMPERATURE_HINT),
        ({"seed": 0}, "seed without a temperature", TEMPERATURE_HINT),
        ({"top_p": 0.9, "top_k": 5, "seed": 1}, "top-p, top-k, seed without a temperature", TEMPERATURE_HINT),
    ],
)
def test_transcribe_options_refused(options: dict, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        TranscribeOptions(**options)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"dtype": "float16"},
            "float16 cannot hold this model: its encoder reaches 10,000 and its adaptor peaks above 1,000",
            "use bfloat16, which takes the same space, or float32",
        ),
        ({"dtype": "int8"}, "unknown type 'int8'", "choose from bfloat16, float32"),
        ({"quantize": 5}, "no recipe '5' for quantization", "choose from 4, 8, mixed"),
        ({"quantize": 0}, "no recipe '0' for quantization", "choose from 4, 8, mixed"),
        ({"quantize": 4, "group_size": 48}, "group size 48", "choose from 32, 64, 128"),
        ({"quantize": 4, "group_size": 0}, "group size 0", "choose from 32, 64, 128"),
        ({"group_size": 64}, "a group size without quantization", "add --quantize"),
        ({"verify": "on"}, "cannot verify 'on'", "choose from off, clip, full"),
    ],
)
def test_convert_options_refused(options: dict, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ConvertOptions(**options)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_what_is_at_the_limit_is_taken() -> None:
    TranscribeOptions(max_tokens=1, temperature=1e-3, top_p=1.0, top_k=1, seed=2**63 - 1)
    TranscribeOptions(hotwords=("a",) * MAX_HOTWORDS)
    TranscribeOptions(min_pause_s=0.1, max_segment_s=2.0, join_s=2.0, batch_size=1, vad_threshold=1e-6)
    TranscribeOptions(min_pause_s=10.0, max_segment_s=300.0, join_s=300.0, vad_threshold=1 - 1e-6)
    for bits in (4, 8):
        for group_size in (None, 32, 64, 128):
            ConvertOptions(dtype="float32", quantize=bits, group_size=group_size)
