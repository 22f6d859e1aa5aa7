"""Read the folder of a Qwen3 language model, by itself or as a part of a speech model.

The layouts are that of Transformers, in one file or in shards, and that of mlx-lm, which may be quantized. Both
have the same names. A network has the model as its attribute `llm`.

Source: transformers ``models/qwen3`` and mlx-lm ``utils.py`` (``quantize_model``, ``save_model``).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import keymap, quantize
from funasr_cli.checkpoints.keymap import HEAD, Rule, Tied
from funasr_cli.checkpoints.quantize import Part, Quantization
from funasr_cli.checkpoints.shards import open_weights, refuse_quantized
from funasr_cli.checkpoints.tensors import Tensor, usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in, read_json, read_limited
from funasr_cli.checkpoints.values import Options, stated_in, value
from funasr_cli.checkpoints.vocabularies import read_tokenizer
from funasr_cli.errors import ModelError
from funasr_cli.families.components import qwen3_config, stop_token_ids
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.options import RECIPES

TRANSFORMERS, MLX_LM = "Transformers", "mlx-lm"  # names of the layouts
LM_HEAD, EMBEDDING = "llm.lm_head.weight", "llm.model.embed_tokens.weight"
RULES = (Rule("lm_head.weight", LM_HEAD, HEAD), Rule("{anything}", "llm.{anything}"))
PART = Part("quantize", "the decoder", ("llm.",), RECIPES, whole=True)
STOPS = ("<|im_end|>", "<|endoftext|>")  # end a turn, and a text
TEMPLATE_FILE, TEMPLATE_LIMIT_BYTES = "chat_template.jinja", 1 << 20
POSITIONS = 32768  # transformers.Qwen3Config
FILES = (
    files.CONFIG_FILE, files.TOKENIZER_FILE, *files.OPTIONAL_TOKENIZER_FILES, TEMPLATE_FILE,
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


@dataclass(frozen=True)
class LLMFolder:
    """An opened folder. Tensors have not been read yet; their names begin with ``llm.``.

    Attributes:
        layout: name of the layout.
        config: sizes of the decoder.
        positions: the most tokens of a prompt and its text.
        stop_token_ids: tokens that end a text.
        empty_think: whether an empty ``<think>`` block keeps the model from thinking.
        tensors: by name.
        dtype: type of most of them.
        quantization: how they are quantized, if they are.
        weights: the files that hold them, one or all shards.
        files: the tokenizer's files, by name.
        notes: for the user.
    """

    layout: str
    config: Qwen3Config
    positions: int
    stop_token_ids: tuple[int, ...]
    empty_think: bool
    tensors: Mapping[str, Tensor]
    dtype: str
    quantization: Quantization | None
    weights: tuple[Path, ...]
    files: Mapping[str, Path]
    notes: tuple[str, ...]


def open_llm(folder: Path) -> LLMFolder:
    """Open a folder.

    Raises:
        ModelError: the model is not supported, or a file is missing or damaged. Whether the tensors fit the
            configuration is checked by `empty_model`.
    """
    path = file_in(folder, files.CONFIG_FILE)
    content = read_json(path)
    if content.get("format") == files.FORMAT:
        message = f"{folder}: a converted model cannot be a part of another one"
        raise ModelError(message, "name the model that it was made from with --llm", code="model-unsupported")
    stated = content.get("quantization")
    if content.get("quantization_config") != stated:  # mlx-lm states its own quantization under both names
        refuse_quantized(content, path)
    with stated_in(str(path)):
        config, positions = qwen3_config(content), value(content, "max_position_embeddings", POSITIONS)
    found = files.tokenizer_files(folder, folder)
    stops, notes = _stops(content, found, config.vocab_size)
    weights, stored = open_weights(folder)
    tensors = keymap.translate(stored, RULES, str(folder), tied=tied(config))
    return LLMFolder(
        layout=MLX_LM if stated else TRANSFORMERS,
        config=config,
        positions=positions,
        stop_token_ids=stops,
        empty_think=_takes_empty_think(folder),
        tensors=tensors,
        dtype=usual_dtype(tensors),
        quantization=_quantization(stated, f"{path}: quantization"),
        weights=weights,
        files=found,
        notes=notes,
    )


def tied(config: Qwen3Config) -> Tied | None:
    """Return the head and the embedding if the config ties them; else None."""
    return Tied(LM_HEAD, EMBEDDING) if config.tie_word_embeddings else None


def _quantization(stated: object, where: str) -> Quantization | None:
    found = quantize.from_json(stated, where)
    exceptions = {f"llm.{module}": groups for module, groups in found.exceptions.items()} if found else {}
    return found and dataclasses.replace(found, exceptions=exceptions)


def _stops(
    content: Options, found: Mapping[str, Path], vocab_size: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the stop tokens, and a note if they are not those of ``generation_config.json``."""
    if path := found.get(files.GENERATION_FILE):
        generation = read_json(path)
        if generation.get("eos_token_id") is not None:
            with stated_in(str(path)):
                return stop_token_ids(generation), ()
    tokenizer = read_tokenizer(found[files.TOKENIZER_FILE], vocab_size)
    named = {mark: token_id for mark in STOPS if (token_id := tokenizer.token_to_id(mark)) is not None}
    if not named:
        message = f"{found[files.TOKENIZER_FILE]}: has no token {' or '.join(STOPS)}"
        hint = f"state eos_token_id in {files.GENERATION_FILE}"
        raise ModelError(message, hint, code="tokenizer-mismatch")
    stated = stop_token_ids(content) if content.get("eos_token_id") is not None else ()
    note = f"{files.GENERATION_FILE} states no stop tokens: a text ends at the tokenizer's {' and '.join(named)}"
    return tuple(dict.fromkeys((*stated, *named.values()))), (note,)


def _takes_empty_think(folder: Path) -> bool:
    """Tell whether a model expects a ``<think>`` block before its answer, by its chat template.

    Qwen3's template has one; that of Qwen3-4B-Instruct-2507, which never thinks, has none. Without a template, it
    is taken for Qwen3's.
    """
    if path := optional_file_in(folder, TEMPLATE_FILE):
        template = read_limited(path, TEMPLATE_LIMIT_BYTES).decode(errors="replace")
    else:
        config = optional_file_in(folder, files.OPTIONAL_TOKENIZER_FILES[0])
        stated = read_json(config).get("chat_template") if config else None
        template = stated if isinstance(stated, str) else ""
    _, asks, answer = template.rpartition("add_generation_prompt")
    return not asks or "<think>" in answer
