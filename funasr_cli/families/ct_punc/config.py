"""Configuration of a CT-Transformer.

Source: FunASR ``funasr/models/ct_transformer/model.py`` (``CTTransformer``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.families.components import heads_misfit
from funasr_cli.models.sanm import SANMConfig

NO_MARK, UNKNOWN_MARK = "_", "<unk>"  # labels that stand for no mark
COMMA, STOP, QUESTION, ENUMERATION = "，", "。", "？", "、"
KNOWN_LABELS = (UNKNOWN_MARK, NO_MARK, COMMA, STOP, QUESTION, ENUMERATION)
ASCII_MARKS = {COMMA: ",", STOP: ".", QUESTION: "?"}  # after a token in ASCII
CAPABILITIES = Capabilities(languages=("zh", "yue", "en"))  # Cantonese is written like Chinese


@dataclass(frozen=True)
class CTPuncConfig:
    """Configuration of the network, and of what it reads and writes."""

    encoder: SANMConfig
    vocab_size: int
    labels: tuple[str, ...]  # what the network chooses from after each token
    words: bool  # whether a token is a Chinese word of the vocabulary, not a character


def misfits(config: CTPuncConfig) -> Iterator[str]:
    """Report inconsistent values of a configuration whose numbers are in range."""
    encoder = config.encoder
    yield from heads_misfit("encoder", encoder.width, encoder.heads)
    if encoder.input_dim != encoder.width or encoder.width % 2 or encoder.width < 4 or encoder.tp_blocks:
        yield f"an encoder of {encoder.input_dim} to {encoder.width} values is not one of a CT-Transformer"
    if encoder.memory_shift > encoder.memory_taps // 2:
        yield f"a filter shift of {encoder.memory_shift} is more than half of {encoder.memory_taps} taps"
    if sorted(config.labels) != sorted(KNOWN_LABELS):
        yield f"labels are {quoted(config.labels)}, not {' '.join(KNOWN_LABELS)}"
