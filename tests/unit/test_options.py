"""What options refuse, naming the value."""

import pytest

from funasr_cli.errors import ExitCode, UsageError
from funasr_cli.options import ConvertOptions, TranscribeOptions, known_hub

NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {
    "max_tokens": (0, -5),
    "exact_tokens": (0,),
    "hotwords": ("Kennedy",),
    "temperature": (-0.1, NAN, INF),
    "top_p": (0.0, 1.01, NAN),
    "top_k": (0,),
    "seed": (-1, 2**63),
    "vad_threshold": (0.0, 1.0, NAN),
    "min_pause_s": (0.09, 10.1, NAN),
    "join_s": (-1.0, 30.1, NAN),
    "max_segment_s": (1.9, 301.0, -5.0, NAN),
    "batch_size": (0, -1),
    "draft": ("on",),
}


def refused(kind: type, code: str, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        kind(**options)
    assert (caught.value.code, caught.value.exit_code) == (code, ExitCode.USAGE)
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]]
)
def test_values_out_of_range(name: str, value: object) -> None:
    sampling = {"temperature": 1.0} if name in ("top_p", "top_k", "seed") else {}
    message = refused(TranscribeOptions, "option-value", **{**sampling, name: value})
    assert str(value) in message or name == "hotwords"


def test_segments_are_not_joined_beyond_the_longest() -> None:
    assert "6.0" in refused(TranscribeOptions, "option-value", join_s=6.0, max_segment_s=5.0)


@pytest.mark.parametrize("names", [("top_p",), ("seed",), ("top_p", "top_k", "seed")])
def test_what_greedy_decoding_would_ignore(names: tuple[str, ...]) -> None:
    message = refused(TranscribeOptions, "options-conflict", **dict.fromkeys(names, 1))
    assert all(name.replace("_", "-") in message for name in names)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"dtype": "float16"}, "option-value"),
        ({"dtype": "int8"}, "option-value"),
        ({"quantize": 5}, "option-value"),
        ({"quantize": 0}, "option-value"),
        ({"quantize_encoder": 4}, "option-value"),
        ({"quantize": 4, "group_size": 48}, "option-value"),
        ({"quantize": 4, "group_size": 0}, "option-value"),
        ({"verify": "on"}, "option-value"),
        ({"languages": ("en", "klingon")}, "language-unknown"),
        ({"group_size": 64}, "options-conflict"),
    ],
)
def test_convert_options_refused(options: dict, code: str) -> None:
    message = refused(ConvertOptions, code, **options)
    last = [*options.values()][-1]
    assert code == "options-conflict" or str(last[-1] if isinstance(last, tuple) else last) in message


def test_an_unknown_hub() -> None:
    with pytest.raises(UsageError, match="github") as caught:
        known_hub("github")
    assert caught.value.code == "option-value"
    assert known_hub("ms").label == "ModelScope"


def test_what_is_at_the_limit_is_taken() -> None:
    TranscribeOptions(max_tokens=1, temperature=1e-3, top_p=1.0, top_k=1, seed=2**63 - 1)
    TranscribeOptions(hotwords=("a" * 80,) * 1000)  # their tokens are counted when the tokenizer is known
    TranscribeOptions(min_pause_s=0.1, max_segment_s=2.0, join_s=2.0, batch_size=1, vad_threshold=1e-6)
    TranscribeOptions(min_pause_s=10.0, max_segment_s=300.0, join_s=300.0, vad_threshold=1 - 1e-6)
    for bits in (4, 8):
        for group_size in (None, 32, 64, 128):
            ConvertOptions(dtype="float32", quantize=bits, group_size=group_size)
