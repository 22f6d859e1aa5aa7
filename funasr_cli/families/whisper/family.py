"""The `Family` of Whisper."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.shards import PICKLE
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families.family import Download, Family, Layout, LoadedModel, NativePart
from funasr_cli.families.whisper import layouts
from funasr_cli.families.whisper.config import (
    ENGLISH_SIZE,
    SIZES,
    WhisperConfig,
    capabilities,
    capabilities_of,
    misfits,
)
from funasr_cli.families.whisper.network import Whisper
from funasr_cli.families.whisper.tokens import TOKENS_FILE, read_vocabulary
from funasr_cli.features.log_mel import WINDOW_S
from funasr_cli.languages import WHISPER_TOKEN_OF
from funasr_cli.native.whisper import NativeWhisperDecoder, NativeWhisperEncoder
from funasr_cli.options import ENCODER_BITS, NATIVE, RECIPES

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

VOCABULARY = 51865  # about
SHORT, HUB = "whisper-", "openai/whisper-"  # before a size
ALIASES = {f"{SHORT}{name}": f"{HUB}{name}" for name, size in SIZES.items() if size.megabytes}
ALIASES |= {f"{SHORT}turbo": f"{HUB}large-v3-turbo"}


def _load(loaded: LoadedModel) -> "SpeechModel":
    from funasr_cli.families.whisper.model import WhisperModel

    return WhisperModel(loaded)


def _vocabulary_problems(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    config = checkpoint.config
    read_vocabulary(checkpoint.files, checkpoint.texts, config.decoder.vocab_size, config.languages)
    return ()


def _downloads() -> dict[str, Download]:
    found = {}
    for alias, hub_id in ALIASES.items():
        size = SIZES[hub_id.removeprefix(HUB)]
        every, (encoder, decoder) = tuple(WHISPER_TOKEN_OF), size.layers
        # Cantonese, the last language, came with large-v3.
        languages = ("en",) if alias.endswith(ENGLISH_SIZE) else every if size.mel_bins > 80 else every[:-1]
        fetched, converted = (each * 10**6 for each in size.megabytes)
        found[alias] = Download(
            f"Whisper {alias.removeprefix(SHORT)}", hub_id, fetched, converted,
            capabilities=capabilities_of(languages, encoder, decoder), longest_segment_s=float(WINDOW_S),
            packed_values=(16 * decoder * size.width**2 + VOCABULARY * size.width, 12 * encoder * size.width**2),
        )  # fmt: skip
    return found


def _readme(config: WhisperConfig) -> Iterator[str]:
    yield f"Translation into English: {'yes' if capabilities(config).translation else 'no'}"


FAMILY = Family(
    model_type="whisper",
    upstream_classes=(layouts.MODEL,),
    title="Whisper",
    aliases=ALIASES,
    config=WhisperConfig,
    misfits=misfits,
    network=Whisper,
    load=_load,
    capabilities=capabilities,
    open_funasr=layouts.open_funasr,
    open_pickle=layouts.open_openai,
    layouts=(
        Layout(matches=lambda content: "d_model" in content, open=layouts.open_transformers),
        Layout(
            matches=lambda content: "n_audio_state" in content,
            open=layouts.open_mlx,
            is_ready=True,
            weights=layouts.MLX_WEIGHTS,
        ),
    ),
    rules={
        f"{layouts.OPENAI} and {funasr.LAYOUT}": layouts.OPENAI_RULES,
        layouts.TRANSFORMERS: layouts.TRANSFORMERS_RULES,
        f"{layouts.MLX} and {files.FORMAT}": SAME,
    },
    files=lambda folder, _: {TOKENS_FILE: file_in(folder, TOKENS_FILE, DAMAGED_HINT)},
    vocabulary_problems=_vocabulary_problems,
    parts=(
        Part("quantize", "the decoder", ("decoder.blocks.", "decoder.token_embedding."), RECIPES),
        Part("quantize_encoder", "the encoder", ("encoder.blocks.",), ENCODER_BITS),
    ),
    readme=_readme,
    hub_files=(files.TOKENIZER_FILE, files.GENERATION_FILE),
    weights=(*layouts.MLX_WEIGHTS, PICKLE),
    downloads=_downloads(),
    native=(
        NativePart("encoder", NativeWhisperEncoder, lambda config: config.encoder),
        NativePart("decoder", NativeWhisperDecoder, lambda config: config.decoder),
    ),
    float32_engine=NATIVE,
    int8_clips=tuple(sorted((Path(__file__).parent / "recorded").glob("*.flac"))),
)
