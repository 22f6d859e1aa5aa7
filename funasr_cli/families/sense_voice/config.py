"""Configuration of SenseVoiceSmall, and constants common to all its checkpoints.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.capabilities import Capabilities
from funasr_cli.families.components import encoder_misfits
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.sanm import SANMConfig

# Rows of the query embedding table. Four queries precede the audio: language, emotion, event and normalisation.
QUERY_ROWS = 16
LANGUAGE_ROWS = {None: 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}  # None: the model decides
FIXED_ROWS = (1, 2)
ITN_ROWS = {True: 14, False: 15}
QUERIES = 4
LANGUAGES = tuple(code for code in LANGUAGE_ROWS if code)
CAPABILITIES = Capabilities(
    languages=LANGUAGES,
    itn_switch=True,
    itn_punctuation=True,
    word_times=True,
    alignment=True,
    confidence=True,
    language_found=True,
    tags=True,
)
# Tags at the frames of the first three queries. Emotions and events are mapped to their names in `tags.py`.
NO_SPEECH = "nospeech"
LANGUAGE_TAGS = (*LANGUAGES, NO_SPEECH)
EMOTION_TAGS = {
    "HAPPY": "happy", "SAD": "sad", "ANGRY": "angry", "NEUTRAL": "neutral", "FEARFUL": "fearful",
    "DISGUSTED": "disgusted", "SURPRISED": "surprised", "OTHER": "other-emotion", "EMO_UNKNOWN": None,
}  # fmt: skip
EVENT_TAGS = {
    "Speech": "speech", "BGM": "music", "Laughter": "laughter", "Applause": "applause", "Cry": "crying",
    "Sneeze": "sneeze", "Breath": "breath", "Cough": "cough", "Sing": "singing", "Speech_Noise": "noise",
    "GBG": None, "Event_UNK": None,  # not documented upstream
}  # fmt: skip
TAGS = (LANGUAGE_TAGS, EMOTION_TAGS, EVENT_TAGS)
REQUIRED_TAGS = (*LANGUAGE_TAGS, "NEUTRAL", "Speech")  # a vocabulary without them belongs to another model


def query_rows(language: str | None, *, itn: bool) -> tuple[int, ...]:
    """Return the rows of the query table for a language (ISO code, or None) and for ITN on or off."""
    return (LANGUAGE_ROWS[language], *FIXED_ROWS, ITN_ROWS[itn])


@dataclass(frozen=True)
class SenseVoiceConfig:
    """Configuration of the network and the front end."""

    frontend: FrontendConfig
    encoder: SANMConfig
    vocab_size: int
    blank_id: int


def misfits(config: SenseVoiceConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    encoder = config.encoder
    if config.blank_id >= config.vocab_size:
        yield f"the CTC blank is id {config.blank_id}, but there are only {config.vocab_size} ids"
    yield from encoder_misfits(encoder, config.frontend)
