"""The `Family` of Qwen3 chat models, in the layouts of Transformers and of mlx-lm, which need no conversion."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.values import check_config
from funasr_cli.families import llm_folder
from funasr_cli.families.family import TEXT, Family, Layout, LoadedModel, NativePart
from funasr_cli.families.qwen3.config import Qwen3TextConfig, misfits
from funasr_cli.families.qwen3.network import Qwen3Network
from funasr_cli.native.qwen3 import NativeQwen3

if TYPE_CHECKING:
    from funasr_cli.text_model import TextModel

TITLE = "Qwen3"
CACHED = "models--"  # before the name of a folder in Hugging Face's cache, see `open.open_model`
SIZES = ("0.6B", "1.7B", "4B", "8B", "14B", "32B")


def _load(loaded: LoadedModel) -> "TextModel":
    from funasr_cli.checkpoints.vocabularies import read_tokenizer
    from funasr_cli.families.writing import QwenWriter

    config: Qwen3TextConfig = loaded.file.config
    return QwenWriter(
        loaded,
        loaded.network.llm,
        read_tokenizer(loaded.files[files.TOKENIZER_FILE], config.llm.vocab_size),
        stop_token_ids=config.stop_token_ids,
        positions=config.positions,
        empty_think=config.empty_think,
    )


def _open(folder: Path, name: str) -> Checkpoint:
    found = llm_folder.open_llm(folder)
    config = Qwen3TextConfig(found.config, found.positions, found.stop_token_ids, found.empty_think)
    check_config(config, str(folder / files.CONFIG_FILE), misfits)
    return Checkpoint(
        layout=found.layout,
        config=config,
        dtype=found.dtype,
        tensors=found.tensors,
        files=found.files,
        weights=found.weights,
        quantization=found.quantization,
        source={"source": name.removeprefix(CACHED).replace("--", "/") if name.startswith(CACHED) else name},
        notes=found.notes,
    )


def _vocabulary_problems(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    from funasr_cli.checkpoints.vocabularies import tokenizer_problems

    config = checkpoint.config
    return tokenizer_problems(checkpoint.files[files.TOKENIZER_FILE], config.llm.vocab_size, config.stop_token_ids)


FAMILY = Family(
    model_type="qwen3",
    title=TITLE,
    kind=TEXT,
    aliases={f"qwen3-{size.lower()}": f"Qwen/Qwen3-{size}" for size in SIZES},
    config=Qwen3TextConfig,
    misfits=misfits,
    network=Qwen3Network,
    load=_load,
    capabilities=lambda _: Capabilities(languages=()),  # texts in any language
    layouts=(
        Layout(
            matches=lambda content: "hidden_size" in content,
            open=_open,
            is_ready=True,
            weights=(files.WEIGHTS_FILE, files.INDEX_FILE),
        ),
    ),
    rules={f"{llm_folder.TRANSFORMERS} and {llm_folder.MLX_LM}": llm_folder.RULES, files.FORMAT: SAME},
    files=lambda folder, _: files.tokenizer_files(folder, folder),
    vocabulary_problems=_vocabulary_problems,
    parts=(llm_folder.PART,),
    tied=lambda config: llm_folder.tied(config.llm),
    hub_files=llm_folder.FILES,
    native=(NativePart("llm", NativeQwen3, lambda config: config.llm),),
)
