"""The `Family` of Whisper."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.shards import PICKLE
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families.family import Download, Family, Layout, LoadedModel, NativePart
from funasr_cli.families.whisper import layouts
from funasr_cli.families.whisper.config import WhisperConfig, capabilities, capabilities_of, misfits
from funasr_cli.families.whisper.network import Whisper
from funasr_cli.families.whisper.tokens import TOKENS_FILE, read_vocabulary
from funasr_cli.features.log_mel import WINDOW_S
from funasr_cli.languages import WHISPER_TOKEN_OF
from funasr_cli.native.whisper import NativeWhisperDecoder, NativeWhisperEncoder
from funasr_cli.options import ENCODER_BITS, NATIVE, RECIPES

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

# Short names; megabytes in the repository and in bfloat16; width, and layers of encoder and decoder.
SIZES = {
    "tiny": (151, 76, 384, 4, 4), "base": (290, 146, 512, 6, 6), "small": (967, 484, 768, 12, 12),
    "medium": (3055, 1528, 1024, 24, 24), "large-v2": (6173, 3087, 1280, 32, 32),
    "large-v3": (3087, 3088, 1280, 32, 32), "large-v3-turbo": (1618, 1618, 1280, 32, 4),
    "tiny.en": (151, 76, 384, 4, 4), "base.en": (290, 146, 512, 6, 6), "small.en": (967, 484, 768, 12, 12),
    "medium.en": (3055, 1528, 1024, 24, 24),
}  # fmt: skip
VOCABULARY = 51865  # about
ALIASES = {f"whisper-{size}": f"openai/whisper-{size}" for size in SIZES}
ALIASES |= {"whisper-turbo": "openai/whisper-large-v3-turbo"}


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
        fetched_mb, converted_mb, width, encoder, decoder = SIZES[hub_id.removeprefix("openai/whisper-")]
        packed = 16 * decoder * width**2 + VOCABULARY * width, 12 * encoder * width**2
        size = alias.removeprefix("whisper-")
        found[alias] = Download(
            f"Whisper {size}", hub_id, fetched_mb * 10**6, converted_mb * 10**6,
            capabilities=_capabilities(size), longest_segment_s=float(WINDOW_S), packed_values=packed,
        )  # fmt: skip
    return found


def _capabilities(size: str) -> Capabilities:
    """Return what the model of a size can do; Cantonese came with large-v3."""
    every = tuple(WHISPER_TOKEN_OF)
    newest = size in ("large-v3", "large-v3-turbo", "turbo")
    languages = ("en",) if size.endswith(".en") else every if newest else every[:-1]
    return capabilities_of(languages, translates=len(languages) > 1 and not size.endswith("turbo"))


def _readme(config: WhisperConfig) -> Iterator[str]:
    yield f"Translation into English: {'yes' if config.translates else 'no'}"


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
