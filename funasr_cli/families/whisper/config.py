"""Configuration of Whisper, and what models of each size can do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.untrusted import readable
from funasr_cli.families.components import heads_misfit, widths_misfit
from funasr_cli.families.whisper.tokens import ENGLISH_VOCABULARY
from funasr_cli.features.log_mel import FRAMES
from funasr_cli.languages import LANGUAGES
from funasr_cli.models.whisper_decoder import WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import HEAD_WIDTH, WhisperEncoderConfig

# Cross-attention heads, as layer.head, that follow the speech best: ``_ALIGNMENT_HEADS`` of openai-whisper.
HEADS_FILE = Path(__file__).with_name("alignment_heads.json")
SIZES = {(4, 4): "tiny", (6, 6): "base", (12, 12): "small", (24, 24): "medium", (32, 4): "turbo"}  # by layers


CTC_INSTEAD = "leave it out: the picture shows the CTC output of a model such as sensevoice"


@dataclass(frozen=True)
class WhisperConfig:
    """Configuration of the networks.

    `languages` has the ISO codes of the vocabulary's language tokens; only "en" for an English model, which has no
    use for such tokens. `alignment_heads` has an entry for each head: its layer times the number of heads, plus
    its number within the layer.
    """

    encoder: WhisperEncoderConfig
    decoder: WhisperDecoderConfig
    languages: tuple[str, ...]
    alignment_heads: tuple[int, ...]

    @property
    def multilingual(self) -> bool:
        """Whether the prompt states language and task."""
        return len(self.languages) > 1

    @property
    def translates(self) -> bool:
        """Whether the model can translate: turbo and distilled models, with few layers, were not trained to."""
        return self.multilingual and self.decoder.layers >= self.encoder.layers


def misfits(config: WhisperConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    encoder, decoder = config.encoder, config.decoder
    yield from heads_misfit("encoder", encoder.width, encoder.heads)
    yield from heads_misfit("decoder", decoder.width, decoder.heads)
    yield from widths_misfit("the decoder", decoder.width, "the encoder", encoder.width)
    if 2 * encoder.positions != FRAMES:
        yield f"the encoder has {encoder.positions} positions, not {FRAMES // 2}"
    if unknown := [code for code in config.languages if code not in LANGUAGES]:
        yield f"unknown languages {readable(', '.join(unknown))}"
    if not config.languages:
        yield "there is no language"
    heads = config.alignment_heads
    if not heads or not all(0 <= head < decoder.layers * decoder.heads for head in heads):
        yield "the alignment heads are not heads of the decoder"


def usual_heads(encoder: WhisperEncoderConfig, decoder: WhisperDecoderConfig, name: str) -> tuple[int, ...]:
    """Return the alignment heads of a model of this size; for an unknown size, all in the upper half.

    `name` tells large-v1 and large-v2 apart, whose sizes are the same.
    """
    size = SIZES.get((encoder.layers, decoder.layers))
    if (encoder.layers, decoder.layers) == (32, 32):
        size = "large-v3" if encoder.mel_bins == 128 else "large-v1" if "large-v1" in name else "large-v2"
    elif size and decoder.vocab_size == ENGLISH_VOCABULARY:
        size += ".en"
    if size is None or decoder.width != HEAD_WIDTH * decoder.heads:
        return tuple(range(decoder.layers // 2 * decoder.heads, decoder.layers * decoder.heads))
    known: dict[str, str] = json.loads(HEADS_FILE.read_text(encoding="utf-8"))
    pairs = (map(int, pair.split(".")) for pair in known[size].split())
    return tuple(layer * decoder.heads + head for layer, head in pairs if head < decoder.heads)


def capabilities(config: WhisperConfig) -> Capabilities:
    """Return what a model with this configuration can do."""
    return capabilities_of(config.languages, translates=config.translates)


def capabilities_of(languages: tuple[str, ...], *, translates: bool) -> Capabilities:
    """Return what a model with these languages can do. A single language means an English model."""
    instead = (
        "name a chat model with --translator, or use a larger multilingual model, such as whisper-small; turbo "
        "cannot translate"
    )
    return Capabilities(
        languages=languages,
        hotwords=True,
        previous_text=True,
        context_text=True,
        sampling=True,
        token_limit=True,
        digits=True,
        punctuation=True,
        partial_text=True,
        word_times=True,
        confidence=True,
        language_found=len(languages) > 1,
        translation=translates,
        hints={"translation": instead, "alignment": CTC_INSTEAD, "drafts": "leave it out: Whisper has no drafts"},
    )
