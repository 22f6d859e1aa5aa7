"""Whisper on the native engine: what MLX writes, alone and in any batch; and when it is chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.whisper_rows import CLIPS, assert_same, decode, load_whisper, request

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.rules import Exclusion, TimeRules, ruled
from funasr_cli.families import load, native
from funasr_cli.families.int8 import prove
from funasr_cli.families.kept import Int8Proof
from funasr_cli.families.load import choose_engine, load_model
from funasr_cli.families.whisper.family import FAMILY
from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.options import TranscribeOptions

pytestmark = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
MANY = TranscribeOptions(word_times=True, segment_times=True, confidence=True, max_tokens=16)
CASES = {
    "plain": TranscribeOptions(max_tokens=16),
    "words, pieces and scores": MANY,
    "translated": dataclasses.replace(MANY, language="de", translate=True),
    "sampled": TranscribeOptions(max_tokens=16, temperature=0.7, seed=4),
    "hotwords": TranscribeOptions(max_tokens=16, hotwords=("Kirchberg", "Aare")),
}


@pytest.fixture(scope="module")
def models(small_whisper: Path) -> dict[str, WhisperModel]:
    return {engine: load_whisper(small_whisper, engine=engine) for engine in ("mlx", "native")}


@pytest.mark.parametrize("case", CASES)
def test_it_writes_what_mlx_writes(models: dict[str, WhisperModel], case: str) -> None:
    found, expected = (decode(models[engine], CASES[case], *CLIPS) for engine in ("native", "mlx"))
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs, 2e-3)  # keys and values are rounded to float16
        assert ours.no_speech_probability == pytest.approx(theirs.no_speech_probability, abs=1e-4)
    assert any(segment.text for segment in found)


def test_alone_and_in_any_batch(models: dict[str, WhisperModel]) -> None:
    """Bit by bit, also if rows join while others are decoded."""
    model, options = models["native"], dataclasses.replace(MANY, language="de", translate=True)
    alone = [decode(model, options, samples)[0] for samples in CLIPS]
    assert decode(model, options, *CLIPS) == alone
    session = model.session(options)
    waiting, numbers, found = list(CLIPS), dict[int, int](), dict[int, object]()
    while len(found) < len(CLIPS):
        if waiting:
            [number] = session.add([request(waiting.pop(0))])
            numbers[number] = len(numbers)
        for update in session.step():
            if update.hypothesis:
                found[numbers[update.row]] = update.hypothesis.segment
    assert [found[index] for index in range(len(CLIPS))] == alone


def test_rows_give_back_their_slots(models: dict[str, WhisperModel]) -> None:
    decoder = models["native"].network.decoder
    free = decoder.free_slots
    decode(models["native"], CASES["translated"], *CLIPS)
    session = models["native"].session(MANY)
    [row, _] = session.add([request(CLIPS[0]), request(CLIPS[1])])
    assert decoder.free_slots == free - 2
    session.drop(row)
    assert decoder.free_slots == free - 1
    session._decoder.close()
    assert decoder.free_slots == free


def test_rules_by_the_library_are_those_on_mlx() -> None:
    rng, first = np.random.default_rng(2), 12
    rules = [Exclusion(20, (3, 9), (0, 8)), TimeRules(20, (3, 9), (0, 8), 8, first, 2)]
    for written in ([], [5], [12, 5], [12, 5, 14], [12, 5, 14, 14]):
        for _ in range(20):
            logits = rng.normal(0, 2, (2, 20)).astype(np.float32)
            expected = np.array(ruled(mx.array(logits), rules, [len(written)] * 2, [written] * 2))
            for row, each in enumerate(rules):
                values = np.where(each.excluded(written), -np.inf, logits[row]).astype(np.float64)
                start = each.first_of_group
                with np.errstate(divide="ignore"):
                    if start < 20 and np.log(np.exp(values[start:]).sum()) > values[:start].max():
                        values[:start] = -np.inf
                np.testing.assert_array_equal(np.isfinite(values), np.isfinite(expected[row]))


def test_the_engine_that_is_chosen(small_whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Int8 if it is proven on recorded speech; otherwise, and for float32, the native engine computes float32."""
    asked: list[object] = []

    def answer(*differing: str) -> None:
        def proof(load: object, engine: str, clips: object) -> Int8Proof:
            asked[:] = [engine, clips]
            return Int8Proof(("a", "b"), differing)

        monkeypatch.setattr("funasr_cli.families.load.prove", proof)
        monkeypatch.setattr("funasr_cli.families.kept.Kept.proof", lambda _: None)
        monkeypatch.setattr("funasr_cli.families.kept.Kept.keep_proof", lambda *_: None)
        monkeypatch.setattr(load, "_not_written", {})

    answer()
    assert choose_engine(small_whisper)[:2] == (None, "native")
    assert asked == ["native", FAMILY.int8_clips]
    answer("b")
    choice = choose_engine(small_whisper)
    assert choice[:2] == ("float32", "native")
    assert choice.exact
    assert choose_engine(small_whisper, "float32")[:2] == ("float32", "native")
    assert choose_engine(small_whisper, "float32", "mlx")[:2] == ("float32", "mlx")
    assert choose_engine(small_whisper, "bfloat16")[:2] == ("bfloat16", "mlx")


@pytest.mark.parametrize("why", ["no library", "GPU"])
def test_without_the_engine_mlx_computes(small_whisper: Path, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "no library":
        monkeypatch.setenv("FUNASR_NATIVE", "0")
    else:
        for module in (load, native):
            monkeypatch.setattr(module, "on_accelerator", lambda: True)
    assert choose_engine(small_whisper)[:2] == (None, "mlx")
    assert choose_engine(small_whisper, "float32")[:2] == ("float32", "mlx")
    for option in ({"dtype": "int8"}, {"engine": "native"}):
        by_default = choose_engine(small_whisper, **option, optional=tuple(option))
        assert by_default[:2] == (None, "mlx")
        assert by_default.ignored


def test_a_decoder_that_cannot_be_int8(small_whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is quantized in groups of 32: float32 is computed by the engine that the family names."""
    monkeypatch.setattr(native, "_odd_group", lambda *_: "it is quantized in other groups")
    assert choose_engine(small_whisper)[:2] == ("float32", "native")
    by_default = choose_engine(small_whisper, "int8", optional=("dtype",))
    assert by_default[:2] == ("float32", "native")
    assert by_default.ignored
    assert choose_engine(small_whisper, engine="mlx")[:2] == (None, "mlx")


def test_the_proof_compares_what_the_rules_allow(small_whisper: Path) -> None:
    """On the recordings of the family, whose names are unlike those of the demo's clips."""
    assert len(FAMILY.int8_clips) == 3
    model = load_model(small_whisper, "float32", "native")
    proof = prove(lambda *_: model, "native", FAMILY.int8_clips)
    assert proof == Int8Proof(("kennedy.flac", "novel-1.flac", "novel-2.flac"))
    trace = model.trace(CLIPS[1], TranscribeOptions(max_tokens=6))
    assert trace.likeliest_ids == trace.token_ids
    forced = model.trace(CLIPS[1], TranscribeOptions(max_tokens=1), [*trace.token_ids[:3], 5, 5])
    assert forced.likeliest_ids is not None
    assert forced.likeliest_ids[:4] == trace.token_ids[:4]
