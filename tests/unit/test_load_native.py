"""Loading a model for the native engine: its texts, quantized models, and what is refused."""

from __future__ import annotations

import gc
import shutil
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.small import NATIVE, MakeCheckpoint, convert, edit_json

from funasr_cli import demo
from funasr_cli.benchmarks.synthetic import RELEASE
from funasr_cli.checkpoints.keymap import model_shapes
from funasr_cli.checkpoints.tensors import Tensor
from funasr_cli.compute.backend import mx
from funasr_cli.decoding import cost
from funasr_cli.families import native, registry
from funasr_cli.families.converted import read_config
from funasr_cli.families.load import load_model
from funasr_cli.families.native import Affine, Stored, rounded
from funasr_cli.families.open import open_model
from funasr_cli.families.sense_voice.config import SenseVoiceConfig
from funasr_cli.families.whisper.config import WhisperConfig
from funasr_cli.models.whisper_decoder import WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import WhisperEncoderConfig
from funasr_cli.native import library as native_library
from funasr_cli.native.decoder import SLOTS, NativeDecoder
from funasr_cli.native.library import BFLOAT16, FLOAT32, INT8, Packed, check
from funasr_cli.native.qwen3 import interleaved
from funasr_cli.options import DEFAULTS
from funasr_cli.pipeline import Recognizer
from funasr_cli.verification.proof import trace

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
CLIPS = demo.clips()
PATHS = [clip.path for clip in CLIPS]


@needs_library
@pytest.mark.parametrize("draft", ["auto", "off"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_texts_of_the_demo_model(dtype: str, draft: str) -> None:
    """They are those of MLX in float32, in a batch and alone. So small a decoder gets drafts only alone."""
    recognizer = Recognizer(load_model(demo.MODEL, dtype, "native"))
    done = recognizer.transcribe_batch(PATHS, draft=draft)
    assert [each.text for each in done] == [clip.written for clip in CLIPS]
    alone = recognizer.transcribe(PATHS[3], draft=draft, batch_size=1)
    assert alone.text == CLIPS[3].written
    assert {each.engine.split(",")[0] for each in done} == {f"native {dtype}"}
    assert (alone.timings.accepted > 0) == (draft == "auto")
    assert not any(each.timings.drafted for each in done)


@needs_library
def test_the_ctc_branch_is_not_computed_for_drafts_that_do_not_pay() -> None:
    recognizer = Recognizer(load_model(demo.MODEL, "int8", "native"))
    assert cost.drafts_pay(recognizer.model.network.llm, 1)
    assert not cost.drafts_pay(recognizer.model.network.llm, 2)
    done = recognizer.transcribe_batch(PATHS[:4], second_opinion=False)
    assert sum(each.timings.ctc_s for each in done) == 0
    assert recognizer.transcribe(PATHS[3], second_opinion=False).timings.ctc_s > 0


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_mlx_holds(dtype: str, tmp_path: Path) -> None:
    """Nothing of Fun-ASR-Nano, and of SenseVoice only the table of queries."""
    sense_voice = convert(Path(__file__).parents[1] / "data" / "sense_voice_small", tmp_path / "m").folder
    for folder, kept in ((demo.MODEL, []), (sense_voice, ["embed.weight"])):
        model = load_model(folder, dtype, "native")
        assert [name for name, _ in tree_flatten(model.network.parameters())] == kept
        assert model.native_bytes > 1e5


@needs_library
def test_every_stage_is_near_that_of_mlx() -> None:
    """`trace` works on both engines."""
    ours = trace(load_model(demo.MODEL, "int8", "native"), PATHS[0])
    theirs = trace(load_model(demo.MODEL, "float32"), PATHS[0], ours.token_ids)
    assert ours.text == theirs.text
    np.testing.assert_array_equal(ours.stages["features"], theirs.stages["features"])
    for name, values in theirs.stages.items():
        product = np.vdot(ours.stages[name], values)
        assert product / np.linalg.norm(ours.stages[name]) / np.linalg.norm(values) > 0.9999
    products = (ours.logits * theirs.logits).sum(-1)
    lengths = np.linalg.norm(ours.logits, axis=-1) * np.linalg.norm(theirs.logits, axis=-1)
    assert (products / lengths).min() > 0.999


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(("quantize", "group_size"), [("8", 64), ("4", 64), ("mixed", 64)])
def test_quantized_models_are_used_as_stored(quantize: str, group_size: int, dtype: str, tmp_path: Path) -> None:
    folder = convert(demo.MODEL, tmp_path / "m", quantize=quantize, group_size=group_size).folder
    model = load_model(folder, dtype, "native")
    decoder = model.network.llm
    assert isinstance(decoder, NativeDecoder)
    checkpoint, module = open_model(folder), "llm.model.embed_tokens"
    parts = [checkpoint.tensors[f"{module}.{name}"].read() for name in ("weight", "scales", "biases")]
    bits = checkpoint.quantized()[module].bits
    scale_type = mx.float32 if dtype == "int8" else mx.bfloat16  # MLX rounds to the type of the scales
    packed, scales, biases = parts[0], parts[1].astype(scale_type), parts[2].astype(scale_type)
    table = mx.dequantize(packed, scales, biases, group_size=group_size, bits=bits).astype(mx.float32)
    ids = [0, 5, len(table) - 1]
    np.testing.assert_allclose(decoder.embed(ids), np.array(table)[ids], atol=1e-5)
    theirs = load_model(folder, "float32")
    expected = [each.text for each in Recognizer(theirs).transcribe_batch(PATHS[:4])]
    assert [each.text for each in Recognizer(model).transcribe_batch(PATHS[:4])] == expected
    bits = {"8": {8}, "4": {4}, "mixed": {4, 8}}[quantize] if dtype == "int8" else {32}
    weights = {"4": "4-bit weights", "mixed": "4-bit and 8-bit weights"}.get(quantize)
    assert decoder.bits == bits
    assert weights is None or (f"native int8, {weights}," in model.engine) == (dtype == "int8")


@needs_library
@pytest.mark.parametrize(("dtype", "bits"), [("float16", 4), ("float32", 8)])
def test_scales_of_other_types(dtype: str, bits: int, tmp_path: Path) -> None:
    """Those in float16 are kept as they are; those in float32 do not fit, and the values take 8 bits."""
    folder = convert(demo.MODEL, tmp_path / "m", quantize="4").folder
    tensors = dict(mx.load(str(folder / "model.safetensors")))
    for name, tensor in tensors.items():
        if name.startswith("llm.") and name.endswith(("scales", "biases")):
            tensors[name] = tensor.astype(getattr(mx, dtype))
    mx.eval(list(tensors.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    decoder, checkpoint = load_model(folder, "int8", "native").network.llm, open_model(folder)
    assert decoder.bits == {bits}
    parts = [
        checkpoint.tensors[f"llm.model.embed_tokens.{name}"].read() for name in ("weight", "scales", "biases")
    ]
    table = mx.dequantize(parts[0], *(each.astype(mx.float32) for each in parts[1:]), group_size=64, bits=4)
    np.testing.assert_allclose(decoder.embed([0, 5, len(table) - 1]), np.array(table)[[0, 5, -1]], atol=1e-5)


def test_rows_of_a_quantized_matrix() -> None:
    """Scales are repeated for groups of 128; values times scales plus offsets are what MLX computes."""
    for group_size, bits in ((64, 8), (64, 4), (128, 4), (128, 2)):
        weight = mx.random.normal((96, 256))
        packed, scales, biases = mx.quantize(weight, group_size=group_size, bits=bits)
        stored = Stored(packed, scales, biases, native.Groups(bits, group_size))
        assert (stored.rows, stored.columns) == (96, 256)
        expected = np.array(mx.dequantize(packed, scales, biases, group_size=group_size, bits=bits))
        rows = slice(32, 64)
        values, factors, offsets = stored.affine(rows)
        assert values.max() < 2**bits
        assert factors.shape == (32, 4)
        np.testing.assert_allclose(multiplied_out(Affine(values, factors, offsets)), expected[rows], atol=1e-5)
        np.testing.assert_allclose(stored.dense(rows), expected[rows], atol=1e-6)


def multiplied_out(rows: Affine) -> np.ndarray:
    scales, offsets = (np.repeat(each, 64, axis=1) for each in (rows.scales, rows.offsets))
    return rows.values * scales + offsets


def test_rounding_a_dense_matrix() -> None:
    values = np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32)
    values[3, :64] = 0
    worst = np.abs(multiplied_out(rounded(values)) - values).max()
    assert 0 < worst <= np.abs(values).max() / 254 * 1.01
    assert not multiplied_out(rounded(values))[3, :64].any()


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("dense", ["self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"])
def test_matrices_that_are_fused_may_differ(dense: str, tmp_path: Path) -> None:
    """A dense one next to quantized ones is rounded, and gets scales and offsets as well."""
    folder = convert(demo.MODEL, tmp_path / "m", quantize="8").folder
    module = f"llm.model.layers.0.{dense}"
    tensors = dict(mx.load(str(folder / "model.safetensors")))
    parts = [tensors.pop(f"{module}.{name}") for name in ("weight", "scales", "biases")]
    tensors[f"{module}.weight"] = mx.dequantize(*parts, group_size=64, bits=8).astype(mx.bfloat16)
    mx.eval(list(tensors.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    model, exact = load_model(folder, "int8", "native"), load_model(folder, "float32")
    expected = [each.text for each in Recognizer(exact).transcribe_batch(PATHS[:4])]
    assert [each.text for each in Recognizer(model).transcribe_batch(PATHS[:4])] == expected


@needs_library
@pytest.mark.slow
def test_groups_of_32(tmp_path: Path) -> None:
    folder = convert(demo.MODEL, tmp_path / "m", quantize="4", group_size=32).folder
    with refused("option-unsupported", "groups of 32", "llm."):
        load_model(folder, "int8", "native")
    assert load_model(folder, "float32", "native").engine.startswith("native float32")


@pytest.mark.parametrize(
    ("dtype", "engine", "code"),
    [
        ("int8", "mlx", "options-conflict"),
        ("stored", "native", "option-value"), ("bfloat16", "native", "option-value"),
        (None, "torch", "option-value"),
    ],
)  # fmt: skip
def test_types_and_engines_that_do_not_exist(dtype: str | None, engine: str, code: str) -> None:
    with refused(code):
        load_model(demo.MODEL, dtype, engine)


@pytest.mark.parametrize(
    ("change", "named"), [({"llm_ffn_dim": 96}, "96"), ({"llm_heads": 8, "llm_head_dim": 24}, "24")]
)
def test_a_shape_that_is_not_supported(
    change: dict[str, int], named: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = convert(make_checkpoint(**change), tmp_path / "m").folder
    with refused("option-unsupported", "--engine native", "FunASRNano", named, "not a multiple of"):
        load_model(folder, None, "native")


def test_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "on_accelerator", lambda: True)
    with refused("options-conflict", "--engine native", "GPU"):
        load_model(demo.MODEL, None, "native")


@pytest.mark.parametrize("reason", ["no Linux", "FUNASR_NATIVE=0", "a C compiler", "this CPU", "loaded"])
def test_a_library_that_is_missing(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "libfunasr.so"
    damaged.write_bytes(b"damaged")
    native_library._loaded.cache_clear()
    if reason == "no Linux":
        monkeypatch.setattr(native_library.sys, "platform", "darwin")
        reason = "Linux"
    elif reason == "FUNASR_NATIVE=0":
        monkeypatch.setenv("FUNASR_NATIVE", "0")
    elif reason == "a C compiler":
        monkeypatch.setattr(native_library, "LIBRARY", tmp_path / "none.so")
    elif reason == "loaded":
        monkeypatch.setattr(native_library, "LIBRARY", damaged)
    elif LIBRARY:
        monkeypatch.setattr(native_library, "instruction_sets", lambda _: ("scalar",))
    else:
        pytest.skip(WITHOUT)
    assert native_library.library() is None
    with refused("package-missing", reason) as caught:
        load_model(demo.MODEL, None, "native")
    assert caught.value.exit_code == 5
    assert load_model(demo.MODEL).engine == "mlx float32, CPU"


@needs_library
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_too_little_memory(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is read; what is predicted is about what it takes."""
    sizes: list[int] = []
    model = load_model(demo.MODEL, dtype, "native")
    monkeypatch.setattr(
        "funasr_cli.families.load.refuse_too_large", lambda what, needed, hint: sizes.extend(needed)
    )
    load_model(demo.MODEL, dtype, "native")
    monkeypatch.undo()
    rest = sum(value.nbytes for _, value in tree_flatten(model.network.parameters()))
    assert model.native_bytes + rest < sum(sizes) < 1.5 * (model.native_bytes + rest)
    monkeypatch.setattr("funasr_cli.compute.device.available_bytes", lambda: 10)
    monkeypatch.setattr(Tensor, "read_in", None)
    with refused("memory-short"):
        load_model(demo.MODEL, dtype, "native")


@needs_library
def test_no_more_than_one_matrix_is_read_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of a large one a part at a time."""
    monkeypatch.setattr(native, "ROWS_AT_ONCE", 64)
    counts: list[int] = []
    dense = Stored.dense
    monkeypatch.setattr(Stored, "dense", lambda self, rows: counts.append(len(read := dense(self, rows))) or read)
    model = load_model(demo.MODEL, "int8", "native")
    assert max(counts) == 64
    assert model.native_bytes == load_model(demo.MODEL, "int8", "native").native_bytes
    whole = load_model(demo.MODEL, "int8", "native")
    texts = [Recognizer(each).transcribe(PATHS[0]).text for each in (model, whole)]
    assert texts == [CLIPS[0].written] * 2


@needs_library
def test_rows_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row takes whole pages of keys and values in float16, and is not copied when others join."""
    model = load_model(demo.MODEL, "int8", "native")
    values = model.config.llm.cache_values_a_token
    assert model.network.llm.row_bytes(65) == 128 * values * 2
    monkeypatch.setattr("funasr_cli.families.rows.available_bytes", lambda: 0)
    assert model.session(DEFAULTS).max_rows == 1


def test_the_whole_checkpoint_is_checked(tmp_path: Path) -> None:
    """A decoder's tensor that is missing is reported before the engine is needed."""
    checkpoint = open_model(demo.MODEL)
    assert any(name.startswith("llm.") for name in checkpoint.tensors)
    folder = convert(demo.MODEL, tmp_path / "m").folder
    tensors = dict(mx.load(str(folder / "model.safetensors")))
    del tensors["llm.model.layers.0.mlp.up_proj.weight"]
    mx.eval(list(tensors.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    with refused("model-misfit", "up_proj"):
        load_model(folder, None, "native")


@needs_library
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", [0, 1, 2, 9])
def test_slots_after_an_error(failing: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in a prompt or a step costs no text; the slots of all rows are given back."""
    model, calls, run = load_model(demo.MODEL, "int8", "native"), [0], NativeDecoder.run

    def failing_run(llm: NativeDecoder, rows: list[Any], inputs: list[np.ndarray]) -> list[np.ndarray]:
        calls[0] += 1
        if calls[0] == failing + 1:
            raise error
        return run(llm, rows, inputs)

    monkeypatch.setattr(NativeDecoder, "run", failing_run)
    recognizer = Recognizer(model)
    if error is KeyboardInterrupt:
        with pytest.raises(error):
            recognizer.transcribe_batch(PATHS)
    else:
        texts = [each.text for each in recognizer.transcribe_batch(PATHS)]
        assert texts == [clip.written for clip in CLIPS]
    assert calls[0] > failing
    gc.collect()
    assert model.network.llm.free_slots == SLOTS
    assert [each.text for each in recognizer.transcribe_batch(PATHS[:2])] == [clip.written for clip in CLIPS[:2]]


@needs_library
def test_slots_are_given_back_at_once_after_an_error() -> None:
    """Also while something, such as a traceback, still refers to the batch."""
    session = load_model(demo.MODEL, "int8", "native").session(DEFAULTS)
    batch = Mock()
    session._decoder, session._stage = batch, "decode"
    session.reset()
    batch.close.assert_called_once_with()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rounding_what_is_not_finite(bad: float) -> None:
    """The group's scale is NaN; groups of tiny values are zeros."""
    values = np.ones((2, 192), np.float32)
    values[1, 70], values[0, 128:] = bad, 1e-37
    scales = rounded(values).scales
    assert np.isnan(scales).tolist() == [[False] * 3, [False, True, False]]
    assert scales[0, 2] == 0
    assert not multiplied_out(rounded(values))[0, 128:].any()


# --- packing ---


@needs_library
@given(
    rows=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    packed_type=st.sampled_from([FLOAT32, BFLOAT16, INT8]),
    quantized=st.booleans(),
)
def test_matrices_of_any_height_are_packed_one_below_the_other(
    rows: list[int], packed_type: int, quantized: bool
) -> None:
    """Bit by bit as if they were one, which they are not read as."""
    assert LIBRARY
    rng = np.random.default_rng(rows)
    arrays = [rng.standard_normal((count, 128)).astype(np.float32) for count in rows]
    tensors, groups = dict[str, Any](), dict[str, native.Groups]()
    for number, array in enumerate(arrays):
        parts = {"weight": mx.array(array)}
        if quantized and number == 0:
            parts = dict(zip(("weight", "scales", "biases"), mx.quantize(parts["weight"], 64, 8), strict=True))
            groups["p.0"] = native.Groups(8, 64)
        for name, part in parts.items():
            tensors[f"p.{number}.{name}"] = SimpleNamespace(
                shape=part.shape, dtype="float32", read=lambda part=part: part
            )
    checkpoint: Any = SimpleNamespace(tensors=tensors, quantized=lambda: groups)
    weights = native.PartWeights(checkpoint, "p", packed_type, native.Matrices())
    names = [str(number) for number in range(len(rows))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "ROWS_AT_ONCE", 48)
        packed = weights.matrix(*names)
    stored = [weights._stored(name) for name in names]
    if groups and packed_type == INT8:
        pieces = [each.affine(slice(None)) for each in stored]
        fused = [np.concatenate(columns) for columns in zip(*pieces, strict=True)]
        whole = Packed.of_affine(LIBRARY, *fused, group=64)
    else:
        whole = Packed.of(LIBRARY, np.concatenate([each.dense(slice(None)) for each in stored]), packed_type)
    np.testing.assert_array_equal(packed.bytes, whole.bytes)


@needs_library
@given(
    rows=st.lists(st.sampled_from([16, 32, 64, 80, 96]), min_size=1, max_size=4),
    bits=st.lists(st.sampled_from([None, 8, 4, 2]), min_size=4, max_size=4),
    dtype=st.sampled_from([mx.bfloat16, mx.float16]),
    interleave=st.booleans(),
)
def test_matrices_of_different_bits(
    rows: list[int], bits: list[int | None], dtype: mx.Dtype, interleave: bool
) -> None:
    """Each row is what is stored; it has its own number of bits, unless a pair of tiles would have two kinds."""
    assert LIBRARY
    if interleave:
        rows = rows[:1] * 2
    rng, tensors, groups, dense = np.random.default_rng(rows), dict[str, Any](), dict[str, native.Groups](), []
    for number, (count, own) in enumerate(zip(rows, bits, strict=False)):
        parts = {"weight": mx.array(rng.standard_normal((count, 128)).astype(np.float32)).astype(dtype)}
        dense.append(np.array(parts["weight"].astype(mx.float32)))
        if own:
            parts = dict(zip(("weight", "scales", "biases"), mx.quantize(parts["weight"], 64, own), strict=True))
            groups[f"p.{number}"] = native.Groups(own, 64)
            scales, biases = (parts[name].astype(mx.float32) for name in ("scales", "biases"))
            dense[-1] = np.array(mx.dequantize(parts["weight"], scales, biases, group_size=64, bits=own))
        for name, part in parts.items():
            tensors[f"p.{number}.{name}"] = SimpleNamespace(
                shape=part.shape, dtype=str(part.dtype).removeprefix("mlx.core."), read=lambda part=part: part
            )
    checkpoint: Any = SimpleNamespace(tensors=tensors, quantized=lambda: groups)
    weights = native.PartWeights(checkpoint, "p", INT8, native.Matrices())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "ROWS_AT_ONCE", 48)
        packed = weights.matrix(*map(str, range(len(rows))), interleave=interleave)
    expected = interleaved(*dense) if interleave else np.concatenate(dense)
    read = np.empty(expected.shape, np.float32)
    check(LIBRARY.fn_unpack(packed.matrix, np.arange(len(read), dtype=np.int32), len(read), read))
    np.testing.assert_allclose(read, expected, atol=np.abs(expected).max() / 250)
    own_bits = [8 if each in (None, 8) else 4 for each in bits[: len(rows)]]
    is_mixed = len(set(own_bits)) > 1
    if is_mixed and (interleave or any(count % 32 for count in rows[:-1])):
        own_bits = [8] * len(rows)
    expected_parts = [next(run) for run in map(itemgetter(1), groupby(own_bits))]
    assert [native_library.BITS[part.matrix.weights] for part in packed.parts] == expected_parts


@needs_library
@pytest.mark.parametrize(
    ("start", "shape"), [(16, (32, 64)), (32, (64, 64)), (0, (40, 64)), (0, (64, 128)), (-32, (32, 64))]
)
def test_rows_that_do_not_fit_are_not_packed(start: int, shape: tuple[int, int]) -> None:
    """They would be written past the end, or into other rows."""
    assert LIBRARY
    packed = Packed(LIBRARY, 72, 64, FLOAT32)
    with pytest.raises(ValueError, match="tiles"):
        packed.put(start, np.ones(shape, np.float32))
    packed = Packed(LIBRARY, 72, 64, INT8, has_offset=True)
    scales = np.ones((shape[0], shape[1] // 64), np.float32)
    with pytest.raises(ValueError, match="tiles"):
        packed.put_affine(start, np.ones(shape, np.uint8), scales, scales)
    with pytest.raises(ValueError, match="scales"):
        packed.put_affine(0, np.ones((32, 64), np.uint8), scales[:3], scales[:3])


@pytest.mark.parametrize("part", ["adaptor", "ctc.decoder"])
def test_networks_that_do_not_fit_together(part: str, tmp_path: Path) -> None:
    """Their weights fit the configuration, but one would read more than the other gives."""
    shutil.copytree(demo.MODEL, tmp_path / "m")
    name = {"adaptor": "audio_adaptor", "ctc.decoder": "ctc_decoder"}[part]

    def widen(config: dict[str, Any]) -> None:
        for key in part.split("."):
            config = config[key]
        config["input_dim"] *= 64

    edit_json(tmp_path / "m/config.json", widen)
    path = tmp_path / "m/model.safetensors"
    tensors = dict(mx.load(str(path)))
    tensors[f"{name}.linear1.weight"] = mx.tile(tensors[f"{name}.linear1.weight"], (1, 64))
    mx.eval(list(tensors.values()))
    mx.save_safetensors(str(path), tensors)
    with refused("model-config", "8192", "128"):
        load_model(tmp_path / "m", "float32", "native")


@needs_library
@pytest.mark.parametrize("width", [40, 56])
def test_networks_of_any_width(width: int, make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """The keys and values of a width that is no multiple of a tile's rows are in their places."""
    folder = convert(
        make_checkpoint(encoder_dim=width, with_ctc=True, **NATIVE), tmp_path / "m", dtype="float32"
    ).folder
    ours, theirs = (trace(load_model(folder, "float32", engine), PATHS[0]) for engine in ("native", "mlx"))
    for name, values in theirs.stages.items():
        np.testing.assert_allclose(ours.stages[name], values, atol=1e-3 * np.abs(values).max(), err_msg=name)


def whisper_config(width: int, encoder: int, decoder: int) -> WhisperConfig:
    heads = width // 64
    return WhisperConfig(
        WhisperEncoderConfig(80, 1500, width, heads, encoder),
        WhisperDecoderConfig(51865, 448, width, heads, decoder),
        ("en",),
        (0,),
    )


@needs_library
@pytest.mark.parametrize("encoder", [BFLOAT16, FLOAT32])
def test_the_stated_size_of_packed_matrices(encoder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a download, it is known from a count; it is about that of the model's matrices."""
    monkeypatch.setattr(native, "encoder_type", lambda: encoder)
    monkeypatch.setattr(native, "on_accelerator", lambda: False)
    sense = read_config(demo.MODEL).config.frontend, RELEASE.encoder, 25055, 0
    cases = [
        ("nano", RELEASE), ("mlt-nano", RELEASE), ("sensevoice", SenseVoiceConfig(*sense)),
        ("whisper-tiny", whisper_config(384, 4, 4)), ("whisper-base", whisper_config(512, 6, 6)),
        ("whisper-turbo", whisper_config(1280, 32, 4)),
    ]  # fmt: skip
    for alias, config in cases:
        family = registry.of_config(config)
        shapes = model_shapes(family.network(config)).items()
        source: Any = SimpleNamespace(
            config=config,
            tensors={name: SimpleNamespace(shape=shape) for name, shape in shapes},
            quantized=dict,
        )
        exact = native.kept_bytes(source, family, {}, "bfloat16")
        assert native.stated_kept_bytes(registry.downloads()[alias]) == pytest.approx(exact, rel=0.01)
