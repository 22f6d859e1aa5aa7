"""The `Family` of Fun-ASR-Nano."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.untrusted import file_in
from funasr_cli.families.family import Download, Family, Layout, LoadedModel, NativePart
from funasr_cli.families.fun_asr_nano import layout_mlx_audio as mlx_audio
from funasr_cli.families.fun_asr_nano import layout_transformers as transformers
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig, languages_of, misfits
from funasr_cli.families.fun_asr_nano.layout_funasr import open_funasr
from funasr_cli.families.fun_asr_nano.network import FunASRNano
from funasr_cli.families.fun_asr_nano.upstream import MODEL, upstream_options
from funasr_cli.languages import MLT_LANGUAGES, NANO_LANGUAGES, resolve_language
from funasr_cli.native.networks import NativeAdaptor, NativeCTCHead, NativeSANM
from funasr_cli.native.qwen3 import NativeQwen3
from funasr_cli.options import MAX_SEGMENT_S

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

# Files of the decoder and its tokenizer, at the top of a repository or in a folder such as Qwen3-0.6B.
DECODER_FILES = (
    files.CONFIG_FILE, files.TOKENIZER_FILE, *files.OPTIONAL_TOKENIZER_FILES, "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
CTC_ON_MODELSCOPE = "convert Fun-ASR-Nano-2512 with --hub ms: that copy has a CTC branch"
ALIGN_HINT = "get word times from another model with --align-with sensevoice"
ALIASES = {"nano": "FunAudioLLM/Fun-ASR-Nano-2512", "mlt-nano": "FunAudioLLM/Fun-ASR-MLT-Nano-2512"}
CONVERTED_BYTES = 1_671_000_000  # 829.8 M values in bfloat16, and 11 MB of tokenizer
PACKED_VALUES = 596_000_000, 233_000_000  # of 829.8 M: the rest are not matrices
PICKLE_BYTES = 2_000_000_000  # of model.pt, which also has the decoder's head
TOP_FILES = (*transformers.FEATURES_FILES, files.CTC_VOCABULARY_FILE, "chat_template.jinja")


def capabilities(config: FunASRNanoConfig) -> Capabilities:
    """Return a checkpoint's capabilities."""
    return _capabilities(config.prompt.languages, has_ctc=config.ctc is not None)


def _capabilities(languages: tuple[str, ...], *, has_ctc: bool) -> Capabilities:
    """Return the capabilities of a model for these languages. Word times and drafts need its CTC branch."""
    ways = (CTC_ON_MODELSCOPE,) if languages == NANO_LANGUAGES else ()  # no MLT-Nano has the branch
    instead = ways[0] if ways else "leave it out, or choose a model that has a CTC branch"
    return Capabilities(
        languages=languages,
        prompt=True,
        hotwords=True,
        previous_text=True,
        sampling=True,
        token_limit=True,
        itn_switch=True,
        punctuation=True,
        partial_text=True,
        word_times=has_ctc,
        alignment=has_ctc,
        confidence=True,
        ctc_text=has_ctc,
        drafts=has_ctc,
        second_opinion=has_ctc,
        hints={
            "word_times": ", or ".join((*ways, ALIGN_HINT)),
            "ctc_text": instead,
            "drafts": instead,
        },
    )


def _downloads() -> dict[str, Download]:
    """Return what is fetched for each name. No repository on Hugging Face has a CTC branch."""
    nano, mlt_nano = (_capabilities(languages, has_ctc=False) for languages in (NANO_LANGUAGES, MLT_LANGUAGES))
    of_nano, of_mlt_nano = (
        partial(Download, name, packed_values=PACKED_VALUES, longest_segment_s=MAX_SEGMENT_S, capabilities=able)
        for name, able in (("Fun-ASR-Nano", nano), ("Fun-ASR-MLT-Nano", mlt_nano))
    )
    pickled = PICKLE_BYTES, CONVERTED_BYTES, ("torch",)
    return {
        "nano": of_nano(f"{ALIASES['nano']}-hf", CONVERTED_BYTES, CONVERTED_BYTES),
        ALIASES["nano"]: of_nano(ALIASES["nano"], *pickled),
        "mlt-nano": of_mlt_nano(ALIASES["mlt-nano"], *pickled),
    }


def _load(loaded: LoadedModel) -> "SpeechModel":
    from funasr_cli.families.fun_asr_nano.model import NanoModel

    return NanoModel(loaded)


def _files(folder: Path, config: FunASRNanoConfig) -> dict[str, Path]:
    found = files.tokenizer_files(folder, folder)
    if config.ctc is not None:
        found[files.CTC_VOCABULARY_FILE] = file_in(folder, files.CTC_VOCABULARY_FILE)
    return found


def _vocabulary_problems(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    from funasr_cli.checkpoints.vocabularies import read_ctc_vocabulary, tokenizer_problems

    config = checkpoint.config
    yield from tokenizer_problems(
        checkpoint.files[files.TOKENIZER_FILE], config.llm.vocab_size, config.stop_token_ids
    )
    if config.ctc:
        read_ctc_vocabulary(checkpoint.files[files.CTC_VOCABULARY_FILE])


def _with_languages(config: FunASRNanoConfig, languages: tuple[str, ...]) -> FunASRNanoConfig:
    for code in languages:
        resolve_language(code, MLT_LANGUAGES, MODEL)  # raises for a language that has no name in the prompt
    return dataclasses.replace(config, prompt=dataclasses.replace(config.prompt, languages=languages))


def _readme(config: FunASRNanoConfig) -> Iterator[str]:
    yield f"CTC branch (needed for word times): {'yes' if config.ctc else 'no, the source has no such tensors'}"


FAMILY = Family(
    model_type="fun_asr_nano",
    upstream_classes=(MODEL,),
    title=MODEL,
    aliases=ALIASES,
    config=FunASRNanoConfig,
    misfits=misfits,
    network=FunASRNano,
    load=_load,
    capabilities=capabilities,
    open_funasr=open_funasr,
    layouts=(
        Layout(
            matches=lambda content: "audio_config" in content,
            open=lambda folder, name: transformers.open_transformers(folder, languages_of(name)),
        ),
        Layout(
            matches=lambda content: bool(mlx_audio.decoder_of(content)),
            open=mlx_audio.open_mlx_audio,
            is_ready=True,
        ),
    ),
    rules={
        funasr.LAYOUT: names.FUNASR,
        transformers.LAYOUT: names.TRANSFORMERS,
        f"{mlx_audio.LAYOUT} and {files.FORMAT}": names.OURS,
    },
    files=_files,
    vocabulary_problems=_vocabulary_problems,
    parts=names.PARTS,
    tied=names.tied,
    with_languages=_with_languages,
    upstream_options=upstream_options,
    readme=_readme,
    hub_files=(*DECODER_FILES, *(f"*/{name}" for name in DECODER_FILES), *TOP_FILES),
    downloads=_downloads(),
    ctc_on_modelscope=("nano",),
    native=(
        NativePart("audio_encoder", NativeSANM, lambda config: config.encoder),
        NativePart("audio_adaptor", NativeAdaptor, lambda config: config.adaptor),
        NativePart("ctc_decoder", NativeAdaptor, lambda config: config.ctc and config.ctc.decoder),
        NativePart("ctc", NativeCTCHead, lambda config: config.ctc),
        NativePart("llm", NativeQwen3, lambda config: config.llm),
    ),
)
