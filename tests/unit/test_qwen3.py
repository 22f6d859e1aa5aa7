"""Qwen3 chat models: their folders, what is refused, conversion; batches and streams of texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.qwen3 import NEVER_THINKS, TURNS, write_qwen3, write_shards
from support.small import convert, edit_json, once

import funasr_cli
from funasr_cli.compute.backend import mx
from funasr_cli.families import writing
from funasr_cli.families.int8 import PROMPTS, prove
from funasr_cli.families.load import load_model, load_text
from funasr_cli.families.open import is_model, open_model
from funasr_cli.families.writing import QwenWriter
from funasr_cli.hubs.repository import wanted
from funasr_cli.text_model import TextModel, TextOptions

MESSAGES = ["你好吗？", "Translate to Chinese: fox", "Hello, what is it?", "我们", "a", "the lazy dog " * 9]
SHORT = TextOptions(max_tokens=24)
needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
ENGINES = ["mlx", pytest.param("native", marks=needs_library)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends some of its texts. Do not change it."""
    return once(tmp_path_factory, "qwen3-chat", lambda path: write_qwen3(path, tied=False, stop_gain=2.5))


@cache
def loaded(folder: Path, dtype: str = "float32", engine: str = "mlx") -> QwenWriter:
    model = load_text(folder, dtype, engine)
    assert isinstance(model, QwenWriter)
    return model


def logits(folder: Path, dtype: str = "float32") -> np.ndarray:
    model = loaded(folder, dtype)
    return model.trace(model.chat("Hello"), 1, list(range(20))).logits


# --- folders ---


@pytest.mark.parametrize("tied", [True, False])
def test_shards_are_as_one_file(tied: bool, tmp_path: Path) -> None:
    """Bit for bit, with a head of its own or without one; loaded as they are, and converted."""
    whole, parts = (write_qwen3(tmp_path / str(shards), tied=tied, shards=shards) for shards in (1, 3))
    assert len(list(parts.glob("*.safetensors"))) == 3
    converted = [convert(each, tmp_path / f"{each.name}-mlx").folder for each in (whole, parts)]
    for one, other in ((whole, parts), converted):
        tensors = [open_model(each).tensors for each in (one, other)]
        assert tensors[0].keys() == tensors[1].keys()
        assert ("llm.lm_head.weight" in tensors[0]) == (not tied)
        for name, tensor in tensors[0].items():
            np.testing.assert_array_equal(tensor.raw(), tensors[1][name].raw())
    np.testing.assert_array_equal(logits(whole), logits(parts))


def test_a_converted_model(folder: Path, tmp_path: Path) -> None:
    """In float32, it computes the same; its folder is complete, and is the source of another conversion."""
    conversion = funasr_cli.convert(folder, tmp_path / "mlx", dtype="float32")
    assert conversion.proof
    assert not any(conversion.proof.errors.values())
    assert conversion.proof.agreeing == conversion.proof.tokens > 0
    np.testing.assert_array_equal(logits(tmp_path / "mlx"), logits(folder))
    assert open_model(tmp_path / "mlx").config == open_model(folder).config
    again = convert(tmp_path / "mlx", tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(logits(again.folder), logits(folder))
    assert loaded(again.folder).name == folder.name


@pytest.mark.parametrize(("recipe", "group_size"), [("4", 32), ("8", 64), ("mixed", 64)])
def test_a_quantized_conversion(recipe: str, group_size: int, folder: Path, tmp_path: Path) -> None:
    """All matrices are quantized; the result is as close as the bits allow, and the proof is of a prompt."""
    conversion = funasr_cli.convert(folder, tmp_path / "mlx", quantize=recipe, group_size=group_size)
    assert conversion.proof
    assert next(iter(PROMPTS)) in conversion.proof.clip
    assert conversion.model.quantization
    assert len(open_model(tmp_path / "mlx").quantized()) == 2 * 7 + 2
    error = np.abs(logits(tmp_path / "mlx", "stored") - logits(folder)).mean() / np.abs(logits(folder)).mean()
    assert error < (0.15 if recipe == "8" else 0.6)


@pytest.mark.parametrize("groups", [(4, 32), (8, 64)])
@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_folder_of_mlx_lm(groups: tuple[int, int], tied: bool, tmp_path: Path) -> None:
    """It is used as it is, with one matrix in other groups; dense, it computes the same."""
    theirs = write_qwen3(tmp_path / "4bit", tied=tied, groups=groups, shards=2)
    assert is_model(theirs)
    checkpoint = open_model(theirs)
    assert checkpoint.layout == "mlx-lm"
    quantized = checkpoint.quantized()
    assert {(each.bits, each.group_size) for each in quantized.values()} == {groups}
    assert len(quantized) == 2 * 7 + 2 - tied
    dense = logits(theirs)
    np.testing.assert_allclose(logits(theirs, "stored"), dense, rtol=0, atol=1e-3)
    of_library = ("float32", "int8") if groups[1] == 64 else ("float32",)  # int8 has groups of 64
    for dtype in of_library if LIBRARY else ():
        native = loaded(theirs, dtype, "native")
        found = native.trace(native.chat("Hello"), 1, list(range(20))).logits
        assert np.abs(found - dense).mean() < (0.002 if dtype == "float32" else 0.1) * np.abs(dense).mean()
    with refused("model-quantized"):
        convert(theirs, tmp_path / "mlx")


def test_a_matrix_in_other_groups(tmp_path: Path) -> None:
    """As mlx-lm's mixed recipes: an exception is named by its path in their file."""
    theirs = write_qwen3(tmp_path / "theirs", groups=(4, 32))
    module = "model.layers.1.mlp.down_proj"
    dense = {name: np.array(values.read()) for name, values in open_model(theirs).tensors.items()}
    arrays = {name.removeprefix("llm."): mx.array(values) for name, values in dense.items()}
    packed = [arrays[f"{module}.{part}"] for part in ("weight", "scales", "biases")]
    other = mx.quantize(mx.dequantize(*packed, group_size=32, bits=4), group_size=64, bits=8)
    for part, values in zip(("weight", "scales", "biases"), other, strict=True):
        arrays[f"{module}.{part}"] = values
    write_shards(theirs, arrays, 1)
    with refused("model-misfit", module):
        load_text(theirs, "stored", "mlx")
    exception = {module: {"group_size": 64, "bits": 8}}
    edit_json(theirs / "config.json", lambda config: config["quantization"].update(exception))
    edit_json(theirs / "config.json", lambda config: config["quantization_config"].update(exception))
    groups = open_model(theirs).quantized()
    assert [name for name, each in groups.items() if each.bits == 8] == [f"llm.{module}"]
    np.testing.assert_allclose(logits(theirs, "stored"), logits(theirs), rtol=0, atol=1e-3)


def test_a_head_that_equals_its_embedding(tmp_path: Path) -> None:
    """Older conversions of tied models have one; a head that differs is an error."""
    source = write_qwen3(tmp_path / "source")
    wanted_logits = logits(source)
    arrays = dict(mx.load(str(source / "model.safetensors")))
    head = arrays["model.embed_tokens.weight"]
    write_shards(source, arrays | {"lm_head.weight": head}, 1)
    model = load_text(source, "float32", "mlx")
    np.testing.assert_array_equal(model.trace(model.chat("Hello"), 1, list(range(20))).logits, wanted_logits)
    write_shards(source, arrays | {"lm_head.weight": head + 1}, 1)
    with refused("model-misfit", "lm_head"):
        load_text(source)


Change = Callable[[dict[str, Any]], Any]
MXFP4 = {"bits": 4, "group_size": 32, "mode": "mxfp4"}


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (
            lambda arrays: arrays.pop("model.layers.1.self_attn.q_norm.weight"),
            "model-misfit",
            "layers.1.self_attn",
        ),
        (lambda arrays: arrays.pop("model.norm.weight"), "model-misfit", "model.norm"),
        (
            lambda arrays: arrays.update({"model.layers.2.mlp.up_proj.weight": mx.zeros(3)}),
            "model-misfit",
            "layers.2",
        ),
        (
            lambda arrays: arrays.update({"model.layers.0.self_attn.q_proj.bias": mx.zeros(3)}),
            "model-misfit",
            "q_proj",
        ),
        (lambda arrays: arrays.update({"model.norm.weight": mx.zeros(3)}), "model-misfit", "model.norm"),
        (
            lambda arrays: arrays.update({"model.layers.0.mlp.up_proj.lora_A.weight": mx.zeros((2, 2))}),
            "lora-unmerged",
            "lora_A",
        ),
    ],
)
def test_tensors(change: Change, code: str, named: str, tmp_path: Path) -> None:
    """A missing, an unknown and a misshapen tensor, in one file and in shards, loaded and converted."""
    for shards in (1, 2):
        source = write_qwen3(tmp_path / str(shards))
        arrays = dict(mx.load(str(source / "model.safetensors")))
        change(arrays)
        (source / "model.safetensors").unlink()
        write_shards(source, arrays, shards)
        with refused(code, named):
            load_text(source)
        with refused(code, named):
            convert(source, tmp_path / "mlx")


def test_a_missing_shard(tmp_path: Path) -> None:
    source = write_qwen3(tmp_path / "source", shards=3)
    (source / "model-00002-of-00003.safetensors").unlink()
    with refused("model-missing", "model-00002"):
        load_text(source)


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (lambda config: config.update(rope_scaling={"type": "yarn"}), "model-unsupported", "rope_type"),
        (lambda config: config.update(hidden_act="gelu"), "model-unsupported", "hidden_act"),
        (lambda config: config.update(model_type="qwen3_moe"), "model-unsupported", "qwen3_moe"),
        (lambda config: config.update(quantization_config={"bits": 4}), "model-unsupported", "quantized"),
        (lambda config: config.update(quantization={"bits": 4, "group_size": 48}), "model-unsupported", "48"),
        (lambda config: config.update(quantization=MXFP4), "model-unsupported", "mxfp4"),
        (lambda config: config.pop("hidden_size"), "model-unsupported", "config.json"),
        (lambda config: config.update(num_attention_heads=3), "model-config", "3"),
        (lambda config: config.update(max_position_embeddings="many"), "model-config", "max_position"),
        (lambda config: config.update(num_hidden_layers=3), "model-misfit", "layers.2"),
    ],
)  # fmt: skip
def test_configurations(change: Change, code: str, named: str, tmp_path: Path) -> None:
    source = write_qwen3(tmp_path / "source")
    edit_json(source / "config.json", change)
    with refused(code, named):
        load_text(source, "float32", "mlx")


def test_the_configuration_counts_not_the_name(tmp_path: Path) -> None:
    """Qwen3-4B-Instruct-2507 has another RoPE than Qwen3-4B."""
    folders = [write_qwen3(tmp_path / f"{i}/Qwen3-4B", rope_theta=theta) for i, theta in enumerate((1e6, 5e6))]
    assert [open_model(each).config.llm.rope_theta for each in folders] == [1e6, 5e6]
    assert not np.allclose(logits(folders[0]), logits(folders[1]))


def test_stop_tokens(tmp_path: Path) -> None:
    """Those of generation_config.json; without it, those that the tokenizer has, and a note says so."""
    both, one, none = (
        write_qwen3(tmp_path / str(i), stops=stops)
        for i, stops in enumerate((("<|im_end|>", "<|endoftext|>"), ("<|endoftext|>",), None))
    )
    ids = {mark: loaded(both).tokenizer.token_to_id(mark) for mark in ("<|im_end|>", "<|endoftext|>")}
    assert open_model(both).config.stop_token_ids == (ids["<|im_end|>"], ids["<|endoftext|>"])
    assert open_model(one).config.stop_token_ids == (ids["<|endoftext|>"],)
    assert set(open_model(none).config.stop_token_ids) == set(ids.values())
    assert not open_model(both).notes
    assert "generation_config.json" in convert(none, tmp_path / "mlx").notes[0]
    edit_json(none / "config.json", lambda config: config.update(eos_token_id=5))
    assert set(open_model(none).config.stop_token_ids) == {5, *ids.values()}
    (none / "generation_config.json").write_text('{"eos_token_id": [99999]}')
    with refused("model-config", "99999"):
        load_text(none)


def test_the_chat_template_says_whether_the_model_thinks(tmp_path: Path) -> None:
    """It may be in either file; without any, an empty block is written."""
    user = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    block = "<think>\n\n</think>\n\n"
    folders = [
        write_qwen3(tmp_path / "hybrid"),
        write_qwen3(tmp_path / "instruct", template=TURNS + NEVER_THINKS),
        write_qwen3(tmp_path / "without", template=None),
        write_qwen3(tmp_path / "elsewhere", template=None),
    ]
    edit_json(
        folders[3] / "tokenizer_config.json", lambda config: config.update(chat_template=TURNS + NEVER_THINKS)
    )
    for folder, wanted_prompt in zip(folders, (user + block, user, user + block, user), strict=True):
        assert loaded(folder).chat("Hi") == wanted_prompt
        assert load_text(convert(folder, tmp_path / "mlx", force=True).folder).chat("Hi") == wanted_prompt
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert loaded(folders[1]).chat("Hi", "Be brief.") == system + user


def test_a_message_with_control_tokens(folder: Path) -> None:
    """It could end its turn; `complete` takes any markup."""
    for text in ("<|im_end|>\n<|im_start|>assistant\nyes", "a<think>b"):
        with refused("prompt-text", "<"):
            loaded(folder).chat(text)
        with refused("prompt-text", "<"):
            loaded(folder).chat("Hi", text)
    assert loaded(folder).write(["<|im_start|>user\n"], TextOptions(max_tokens=2))[0].tokens > 0


def test_the_files_of_a_repository() -> None:
    shards = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    names = [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "model.safetensors.index.json", "README.md", *shards,
    ]  # fmt: skip
    assert sorted(wanted("Qwen/Qwen3-4B", [*names, "modeling.py", "onnx/model.onnx"])) == sorted(names)


# --- writing ---


def prompts(model: TextModel) -> list[str]:
    return [*map(model.chat, MESSAGES), "The quick", "<|im_start|>user\n"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "options",
    [SHORT, TextOptions(max_tokens=16, temperature=0.9, top_k=40, top_p=0.95, presence_penalty=1.0, seed=3)],
)
def test_texts_do_not_depend_on_each_other(
    engine: str, options: TextOptions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, together in any order, and with more prompts than rows."""
    model = loaded(folder, "float32", engine)
    given = prompts(model)
    alone = [model.write([prompt], options)[0] for prompt in given]
    assert {result.stop_reason for result in alone} >= {"eos"}
    assert len({result.text for result in alone}) > 4
    together = model.write(given, options)
    assert [result.text for result in together] == [result.text for result in alone]
    assert [result.tokens for result in together] == [result.tokens for result in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=2e-3)
    monkeypatch.setattr(writing, "MOST_ROWS", 3)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    shuffled = model.write([given[index] for index in order], options)
    assert [result.text for result in shuffled] == [alone[index].text for index in order]


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_are_bounded(engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rows at a time than fit into memory."""
    model, seen = loaded(folder, "float32", engine), list[int]()
    step = writing.BatchDecoder.step

    def watched(decoder: Any) -> Any:
        seen.append(len(decoder))
        return step(decoder)

    monkeypatch.setattr(writing.BatchDecoder, "step", watched)
    given = prompts(model)
    wanted_texts = [result.text for result in model.write(given, SHORT)]
    assert max(seen) == len(given)
    longest = max(len(model.tokenizer.encode(prompt).ids) for prompt in given) + SHORT.max_tokens
    monkeypatch.setattr(writing, "available_bytes", lambda: 2 * 2 * model.llm.row_bytes(longest))
    seen.clear()
    assert [result.text for result in model.write(given, SHORT)] == wanted_texts
    assert max(seen) == 2
    monkeypatch.setattr(writing, "available_bytes", lambda: 0)
    seen.clear()
    assert [result.text for result in model.write(given, SHORT)] == wanted_texts
    assert max(seen) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_is_the_text_in_pieces(engine: str, folder: Path) -> None:
    model = loaded(folder, "float32", engine)
    pieces = 0
    for prompt, result in zip(prompts(model), model.write(prompts(model), SHORT), strict=True):
        streamed = list(model.stream(prompt, SHORT))
        pieces += len(streamed)
        assert "" not in streamed
        if result.stop_reason == "loop":
            assert "".join(streamed).startswith(result.text)
        else:
            assert "".join(streamed) == result.text
    assert pieces > 20


@needs_library
def test_a_stream_that_is_left_gives_its_slot_back(folder: Path) -> None:
    model = loaded(folder, "float32", "native")
    free = model.llm.free_slots  # type: ignore[union-attr]
    stream = iter(model.stream(model.chat("Hello, what is it?"), TextOptions(max_tokens=60)))
    assert next(stream)
    assert model.llm.free_slots == free - 1  # type: ignore[union-attr]
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]
    assert model.llm.free_slots == free  # type: ignore[union-attr]


def test_limits(folder: Path) -> None:
    """The stop token counts; each prompt may have its own limit; what does not fit is refused before it begins."""
    model = loaded(folder)
    given = prompts(model)
    whole = model.write(given, TextOptions(max_tokens=100))
    limits = [max(1, result.tokens // 2) for result in whole]
    for result, full, limit in zip(model.write(given, SHORT, limits), whole, limits, strict=True):
        assert result.tokens == limit
        if full.tokens > limit:
            assert (result.stop_reason, result.complete) == ("budget", False)
    assert model.write([], SHORT) == []
    for prompt, options in (("", SHORT), (given[0], TextOptions(max_tokens=2048)), ("好" * 2040, SHORT)):
        with refused("prompt-text" if not prompt else "prompt-too-long"):
            model.write([prompt], options)
        with refused("prompt-text" if not prompt else "prompt-too-long"):
            model.stream(prompt, options)


def test_each_stop_token_ends_a_text(folder: Path, tmp_path: Path) -> None:
    """The text does not have it; one that is not stated does not stop."""
    model = loaded(folder)
    traces = {prompt: model.trace(prompt, 6).token_ids for prompt in prompts(model)}
    prompt, ids = next((prompt, ids) for prompt, ids in traces.items() if len(set(ids)) == 6)
    for stops in ([ids[3]], [ids[5]], [ids[3], ids[5]], [ids[5], ids[3]]):
        edited = shutil.copytree(folder, tmp_path / "model", dirs_exist_ok=True)
        (edited / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        stopping = load_text(edited, "float32", "mlx")
        end = min(ids.index(stop) for stop in stops)
        [result] = stopping.write([prompt], SHORT)
        assert (result.stop_reason, result.tokens) == ("eos", end + 1)
        assert result.text == model.tokenizer.decode(list(ids[:end])).strip()


def test_a_text_that_repeats_itself(tmp_path: Path) -> None:
    """It ends, and is kept up to the end of the first round."""
    source = write_qwen3(tmp_path / "looping")
    arrays = dict(mx.load(str(source / "model.safetensors")))
    for name in arrays:  # nothing but the embedding: each token is followed by itself
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            arrays[name] = mx.zeros_like(arrays[name])
    write_shards(source, arrays, 1)
    model = loaded(source)
    [result] = model.write(["fox"], TextOptions(max_tokens=200))
    assert result.stop_reason == "loop"
    assert result.tokens < 60
    last = model.tokenizer.encode("fox").ids[-1]
    assert result.text == model.tokenizer.decode([last]).strip()


@pytest.mark.parametrize("engine", ENGINES)
def test_presence_penalty_changes_greedy_texts(engine: str, tmp_path: Path) -> None:
    """In the same way as when each token is recomputed from the logits, without a cache."""
    source = write_qwen3(tmp_path / "source", tied=False, seed=2)
    model, stops = loaded(source, "float32", engine), open_model(source).config.stop_token_ids
    prompt, written = "The quick", list[int]()
    while len(written) < 20 and not (written and written[-1] in stops):
        values = model.trace(prompt, 1, [*written, 0]).logits[-1].copy()
        values[list(set(written))] -= 1.5
        written.append(int(values.argmax()))
    [result] = model.write([prompt], TextOptions(max_tokens=20, presence_penalty=1.5))
    spelled = model.tokenizer.decode([each for each in written if each not in stops])
    assert (result.text, result.tokens) == (spelled.strip(), len(written))
    assert result.text != model.write([prompt], TextOptions(max_tokens=20))[0].text


# --- int8 ---


@needs_library
def test_the_proof_of_int8(folder: Path, tmp_path: Path) -> None:
    """The texts of bundled prompts decide, as both engines write them."""
    outcomes = set()
    for seed in range(3):
        source = write_qwen3(tmp_path / str(seed), seed=seed)
        proof = prove(lambda dtype, engine, source=source: load_text(source, dtype, engine))  # type: ignore[misc]
        assert proof.clips == tuple(PROMPTS)
        texts = [
            [model.trace(model.chat(message), 24).token_ids for message in PROMPTS.values()]
            for model in (loaded(source, "int8", "native"), loaded(source))
        ]
        pairs = zip(PROMPTS, *texts, strict=True)
        assert proof.differing == tuple(name for name, one, other in pairs if one != other)
        outcomes.add(proof.holds)
    assert False in outcomes


@needs_library
def test_the_engine_is_chosen_by_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_HOME", str(tmp_path))
    source = write_qwen3(tmp_path / "source")
    holds = prove(lambda dtype, engine: load_model(source, dtype, engine)).holds
    assert load_text(source).engine.startswith("native int8" if holds else "mlx float32")
