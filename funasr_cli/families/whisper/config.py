"""Configuration of Whisper, and what models of each size can do."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.untrusted import readable
from funasr_cli.families.components import heads_misfit, widths_misfit
from funasr_cli.families.whisper.tokens import ENGLISH_VOCABULARY
from funasr_cli.features.log_mel import FRAMES
from funasr_cli.languages import LANGUAGES
from funasr_cli.models.whisper_decoder import WhisperDecoderConfig
from funasr_cli.models.whisper_encoder import HEAD_WIDTH, WhisperEncoderConfig

ENGLISH_SIZE = ".en"  # at the end of the names of English models
CTC_INSTEAD = "leave it out: the picture shows the CTC output of a model such as sensevoice"


class Size(NamedTuple):
    """One of OpenAI's models, in ``sizes.json``.

    `heads` are the cross-attention heads, as layer.head, that follow the speech best: ``_ALIGNMENT_HEADS`` of
    openai-whisper. `megabytes` are those of the repository and of a conversion to bfloat16; none: not offered.
    """

    layers: list[int]  # of encoder and decoder
    width: int
    mel_bins: int
    heads: str
    megabytes: Sequence[int] = ()


_stated = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))
SIZES = {name: Size(**stated) for name, stated in _stated.items()}


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
    wanted = [encoder.layers, decoder.layers], encoder.mel_bins, decoder.vocab_size == ENGLISH_VOCABULARY
    stated = {size: (known.layers, known.mel_bins, size.endswith(ENGLISH_SIZE)) for size, known in SIZES.items()}
    alike = [size for size in SIZES if stated[size] == wanted]
    if not alike or decoder.width != HEAD_WIDTH * decoder.heads:
        return tuple(range(decoder.layers // 2 * decoder.heads, decoder.layers * decoder.heads))
    size = next((size for size in alike if size in name), alike[-1])
    pairs = (map(int, pair.split(".")) for pair in SIZES[size].heads.split())
    return tuple(layer * decoder.heads + head for layer, head in pairs if head < decoder.heads)


def capabilities(config: WhisperConfig) -> Capabilities:
    """Return what a model with this configuration can do."""
    return capabilities_of(config.languages, config.encoder.layers, config.decoder.layers)


def capabilities_of(languages: tuple[str, ...], encoder_layers: int, decoder_layers: int) -> Capabilities:
    """Return what a model with these languages and numbers of layers can do.

    A single language means an English model. Turbo and distilled models, whose decoders have few layers, were not
    trained to translate.
    """
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
        translation=len(languages) > 1 and decoder_layers >= encoder_layers,
        hints={"translation": instead, "alignment": CTC_INSTEAD, "drafts": "leave it out: Whisper has no drafts"},
    )
