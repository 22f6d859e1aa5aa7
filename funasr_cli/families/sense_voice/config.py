"""What a SenseVoiceSmall checkpoint states, and what all of them have in common.

Source: FunASR ``funasr/models/sense_voice/model.py`` (``SenseVoiceSmall``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.capabilities import Capabilities
from funasr_cli.families.components import encoder_misfits, frontend_misfits, heads_misfit
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.sanm import SANMConfig

# Rows of the table of queries. Four of them go in front of the audio: language, emotion, event, normalisation.
QUERY_ROWS = 16
LANGUAGE_ROWS = {None: 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}  # None: the model decides
FIXED_ROWS = (1, 2)
ITN_ROWS = {True: 14, False: 15}
QUERIES = 4
LANGUAGES = tuple(code for code in LANGUAGE_ROWS if code)
CAPABILITIES = Capabilities(
    languages=LANGUAGES,
    itn_switch=True,
    word_times=True,
    alignment=True,
    confidence=True,
    language_found=True,
    tags=True,
)
# What the frames of the first three queries say, by tag; of emotions and events, their names in `tags.py`.
NO_SPEECH = "nospeech"
LANGUAGE_TAGS = (*LANGUAGES, NO_SPEECH)
EMOTION_TAGS = {
    "HAPPY": "happy", "SAD": "sad", "ANGRY": "angry", "NEUTRAL": "neutral", "FEARFUL": "fearful",
    "DISGUSTED": "disgusted", "SURPRISED": "surprised", "OTHER": "other-emotion", "EMO_UNKNOWN": None,
}  # fmt: skip
EVENT_TAGS = {
    "Speech": "speech", "BGM": "music", "Laughter": "laughter", "Applause": "applause", "Cry": "crying",
    "Sneeze": "sneeze", "Breath": "breath", "Cough": "cough", "Sing": "singing", "Speech_Noise": "noise",
    "GBG": None, "Event_UNK": None,  # upstream says of neither what it is
}  # fmt: skip
TAGS = (LANGUAGE_TAGS, EMOTION_TAGS, EVENT_TAGS)
REQUIRED_TAGS = (*LANGUAGE_TAGS, "NEUTRAL", "Speech")  # without which a vocabulary is another model's


def query_rows(language: str | None, *, itn: bool) -> tuple[int, ...]:
    """Rows of the table that ask for a language, as ISO code, and for numbers as digits or words."""
    return (LANGUAGE_ROWS[language], *FIXED_ROWS, ITN_ROWS[itn])


@dataclass(frozen=True)
class SenseVoiceConfig:
    """Everything that the model and the front end need."""

    frontend: FrontendConfig
    encoder: SANMConfig
    vocab_size: int
    blank_id: int


def misfits(config: SenseVoiceConfig) -> Iterator[str]:
    """Name what does not add up in a configuration whose numbers are in range."""
    encoder, row_width = config.encoder, config.frontend.row_width
    if config.blank_id >= config.vocab_size:
        yield f"CTC blank {config.blank_id} is not among {config.vocab_size} ids"
    if encoder.input_dim != row_width:
        yield f"the encoder takes rows of {encoder.input_dim} values, the front end makes {row_width}"
    yield from heads_misfit("encoder", encoder.width, encoder.heads)
    yield from encoder_misfits(encoder)
    yield from frontend_misfits(config.frontend)
