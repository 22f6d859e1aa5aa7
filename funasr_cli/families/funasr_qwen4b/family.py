"""The `Family` of FunASR-Qwen4B."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families import llm_folder
from funasr_cli.families.cmvn import CMVN_FILE, read_cmvn
from funasr_cli.families.family import Family, LoadedModel, NativePart
from funasr_cli.families.funasr_qwen4b import names, sources
from funasr_cli.families.funasr_qwen4b.config import FunASRQwen4BConfig, misfits
from funasr_cli.families.funasr_qwen4b.network import FunASRQwen4B
from funasr_cli.families.funasr_qwen4b.prompt import FORMATS, TRANSLATE
from funasr_cli.native.networks import NativePostNormAdaptor, NativeSANM, NativeUnscaledSANM
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.options import ENCODER_BITS, RECIPES

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

TITLE = "FunASR-Qwen4B"


def capabilities(config: FunASRQwen4BConfig) -> Capabilities:
    """Return a model's capabilities. It was trained on Mandarin without punctuation or digits."""
    return Capabilities(
        languages=("zh",),
        prompt=True,
        sampling=True,
        token_limit=True,
        partial_text=True,
        confidence=True,
        translation=TRANSLATE in FORMATS[config.prompt_format],
        hints={"translation": "set prompt_format to current in the model's config.json"},
    )


def _load(loaded: LoadedModel) -> "SpeechModel":
    from funasr_cli.families.funasr_qwen4b.model import Qwen4BModel

    return Qwen4BModel(loaded)


def _files(folder: Path, config: FunASRQwen4BConfig) -> dict[str, Path]:
    cmvn = {CMVN_FILE: file_in(folder, CMVN_FILE, DAMAGED_HINT)} if config.has_queries else {}
    return files.tokenizer_files(folder, folder) | cmvn


def _vocabulary_problems(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    from funasr_cli.checkpoints.vocabularies import tokenizer_problems

    config = checkpoint.config
    if config.has_queries:
        read_cmvn(checkpoint.files, config.frontend.row_width)
    return tokenizer_problems(checkpoint.files[files.TOKENIZER_FILE], config.llm.vocab_size, config.stop_token_ids)


def _readme(config: FunASRQwen4BConfig) -> Iterator[str]:
    yield f"Input of the encoder: {config.encoder_input}; prompt: {config.prompt_format}"


FAMILY = Family(
    model_type="funasr_qwen4b",
    title=TITLE,
    aliases={},  # no hub has it
    config=FunASRQwen4BConfig,
    misfits=misfits,
    network=FunASRQwen4B,
    load=_load,
    capabilities=capabilities,
    open_sources=sources.open_sources,
    has_sources=sources.is_folder,
    rules={
        f"{sources.LAYOUT}, the encoder": names.OMINIX_ENCODER,
        f"{sources.LAYOUT}, the adaptor": names.OMINIX_ADAPTOR,
        "PyTorch, the adaptor": names.PYTORCH_ADAPTOR,
        f"{llm_folder.TRANSFORMERS} and {llm_folder.MLX_LM}, the language model": llm_folder.RULES,
        files.FORMAT: names.OURS,
    },
    files=_files,
    vocabulary_problems=_vocabulary_problems,
    parts=(
        Part("quantize", "the decoder and the adaptor", ("llm.", "audio_adaptor."), RECIPES, whole=True),
        Part("quantize_encoder", "the encoder", ("audio_encoder.",), ENCODER_BITS),
    ),
    tied=lambda config: llm_folder.tied(config.llm),
    readme=_readme,
    native=(
        NativePart("audio_encoder", NativeSANM, lambda config: config.encoder if config.has_queries else None),
        NativePart(
            "audio_encoder", NativeUnscaledSANM, lambda config: None if config.has_queries else config.encoder
        ),
        NativePart("audio_adaptor", NativePostNormAdaptor, lambda config: config.adaptor),
        NativePart("llm", NativeQwen3, lambda config: config.llm),
    ),
)
