"""Configuration of Paraformer, and constants common to all its checkpoints.

Source: FunASR ``funasr/models/paraformer/model.py``, ``funasr/models/bicif_paraformer/model.py`` and
``funasr/models/seaco_paraformer/model.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from funasr_cli.capabilities import Capabilities
from funasr_cli.families.components import decoder_misfits, encoder_misfits, widths_misfit
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.cif import CIFConfig
from funasr_cli.models.sanm import SANMConfig
from funasr_cli.models.sanm_decoder import SANMDecoderConfig

CONTROL = ("<blank>", "<s>", "</s>")  # the first tokens of every vocabulary; they are not text
START_ID = 1  # <s>: as a hotword, it stands for none of them
OTHER_MODEL = "use the model with hotwords and character times: funasr convert paraformer-zh --hub ms"
HINTS = {
    "hotwords": OTHER_MODEL,
    "word_times": f"{OTHER_MODEL}; or add --align-with and a model that measures times, such as sensevoice",
}
PLAIN = Capabilities(("zh",), confidence=True, hints=HINTS)  # of the model on Hugging Face


@dataclass(frozen=True)
class HotwordConfig:
    """What a SeACo model has in addition: an encoder of hotwords, and a decoder that looks for them."""

    decoder: SANMDecoderConfig
    no_bias_id: int  # its output where it hears no hotword; upstream's NO_BIAS


@dataclass(frozen=True)
class ParaformerConfig:
    """Configuration of the networks and the front end."""

    frontend: FrontendConfig
    encoder: SANMConfig
    predictor: CIFConfig
    decoder: SANMDecoderConfig
    hotwords: HotwordConfig | None


def misfits(config: ParaformerConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    encoder, decoder = config.encoder, config.decoder
    yield from encoder_misfits(encoder, config.frontend)
    yield from widths_misfit("the predictor", config.predictor.width, "the encoder", encoder.width)
    yield from decoder_misfits("the decoder", decoder, encoder)
    if config.hotwords:
        yield from decoder_misfits("the hotword decoder", config.hotwords.decoder, encoder)
        if config.hotwords.no_bias_id >= (decoder.vocab_size or 0):
            yield f"NO_BIAS is {config.hotwords.no_bias_id}, but there are only {decoder.vocab_size} tokens"
    if not decoder.vocab_size:
        yield "the decoder has no output layer"


def capabilities(config: ParaformerConfig) -> Capabilities:
    """Return what a model with this configuration can do."""
    return replace(PLAIN, hotwords=config.hotwords is not None, word_times=config.predictor.times is not None)
