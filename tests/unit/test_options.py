"""Invalid options are refused, and the error names the value."""

from dataclasses import replace

import pytest
from support.errors import refused

from funasr_cli.options import ConvertOptions, TranscribeOptions, known_hub

NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {
    "max_tokens": (0, -5), "exact_tokens": (0,), "hotwords": ("Kennedy",), "temperature": (-0.1, 2.1, 9, NAN, INF),
    "top_p": (0.0, 1.01, NAN), "top_k": (0,), "seed": (-1, 2**63), "vad_threshold": (0.0, 1.0, NAN),
    "min_pause_s": (0.09, 10.1, NAN), "join_s": (-1.0, 30.1, NAN), "max_segment_s": (1.9, 301.0, -5.0, NAN),
    "batch_size": (0, -1), "draft": ("on",), "vad_model": ("webrtc", ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]]
)
def test_values_out_of_range(name: str, value: object) -> None:
    sampling = {"temperature": 1.0} if name in ("top_p", "top_k", "seed") else {}
    with refused("option-value", "" if name == "hotwords" else value):
        TranscribeOptions(**{**sampling, name: value})


@pytest.mark.parametrize(
    ("stated", "pair"),
    [
        (None, None), ("none", None), ("auto", (1, None)), (2, (2, 2)), ("2", (2, 2)), ("2-4", (2, 4)),
        ((2, 4), (2, 4)), ([2, 4], (2, 4)), ((3, None), (3, None)),
    ],
)  # fmt: skip
def test_numbers_of_speakers(stated: object, pair: object) -> None:
    """From Python as on the command line; copies keep them."""
    options = TranscribeOptions(speakers=stated)
    assert options.speakers == replace(options, itn=False).speakers == pair


@pytest.mark.parametrize(
    "stated",
    [
        True, False, 0, -1, 2.0, "", "two", "0", "5-2", "0-2", "2-", "9" * 5000, (5, 2), (0, 2), (2,), (),
        (1, 2, 3), (True, 2), (1, True), ("1", "2"), (None, 2), {1, 2}, {1: 2}, b"2", object,
    ],
    ids=lambda stated: repr(stated)[:20],
)  # fmt: skip
def test_what_is_no_number_of_speakers(stated: object) -> None:
    """The message repeats it."""
    with refused("option-value", f"--speakers is {stated!r}"):
        TranscribeOptions(speakers=stated)


def test_segments_are_not_joined_beyond_the_longest() -> None:
    with refused("option-value", 6.0):
        TranscribeOptions(join_s=6.0, max_segment_s=5.0)


@pytest.mark.parametrize("names", [("top_p",), ("seed",), ("top_p", "top_k", "seed")])
def test_options_that_greedy_decoding_would_ignore(names: tuple[str, ...]) -> None:
    with refused("options-conflict", *(name.replace("_", "-") for name in names)):
        TranscribeOptions(**dict.fromkeys(names, 1))


def test_the_dynamic_schedule_sets_the_pause_itself() -> None:
    with refused("options-conflict", "fsmn-dynamic"):
        TranscribeOptions(vad_model="fsmn-dynamic", min_pause_s=0.5)
    TranscribeOptions(vad_model="fsmn", min_pause_s=0.5)


@pytest.mark.parametrize(
    ("code", "value", "options"),
    [
        ("option-value", "float16", {"dtype": "float16"}), ("option-value", "int8", {"dtype": "int8"}),
        ("option-value", 5, {"quantize": 5}), ("option-value", 0, {"quantize": 0}),
        ("option-value", 4, {"quantize_encoder": 4}), ("option-value", 48, {"quantize": 4, "group_size": 48}),
        ("option-value", 0, {"quantize": 4, "group_size": 0}), ("option-value", "on", {"verify": "on"}),
        ("language-unknown", "klingon", {"languages": ("en", "klingon")}),
        ("options-conflict", "", {"group_size": 64}),
    ],
)  # fmt: skip
def test_convert_options_refused(code: str, value: object, options: dict) -> None:
    with refused(code, value):
        ConvertOptions(**options)


def test_an_unknown_hub() -> None:
    with refused("option-value", "github"):
        known_hub("github")
    assert known_hub("ms").label == "ModelScope"


def test_values_at_the_limit_are_accepted() -> None:
    TranscribeOptions(max_tokens=1, temperature=1e-3, top_p=1.0, top_k=1, seed=2**63 - 1)
    TranscribeOptions(temperature=2)
    TranscribeOptions(hotwords=("a" * 80,) * 1000)  # their tokens are counted later, with the tokenizer
    TranscribeOptions(min_pause_s=0.1, max_segment_s=2.0, join_s=2.0, batch_size=1, vad_threshold=1e-6)
    TranscribeOptions(min_pause_s=10.0, max_segment_s=300.0, join_s=300.0, vad_threshold=1 - 1e-6)
    for bits in (4, 8):
        for group_size in (None, 32, 64, 128):
            ConvertOptions(dtype="float32", quantize=bits, group_size=group_size)
