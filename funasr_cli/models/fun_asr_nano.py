"""Fun-ASR-Nano: SAN-M encoder, adaptor and Qwen3 decoder, with a CTC branch where the checkpoint has one.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``FunASRNano``).
"""

from dataclasses import dataclass

from funasr_cli.backend import mx, nn
from funasr_cli.features import FrontendConfig
from funasr_cli.models.adaptor import Adaptor, AdaptorConfig, audio_token_count
from funasr_cli.models.ctc import CTCConfig, CTCHead
from funasr_cli.models.qwen3 import Qwen3, Qwen3Config
from funasr_cli.models.sanm import SANMConfig, SANMEncoder

MODEL_TYPE = "fun_asr_nano"


@dataclass(frozen=True)
class PromptConfig:
    """How this checkpoint was taught to be asked.

    Attributes:
        system_turn: ``dataset_conf.sys_prompt`` upstream: open with the system turn.
        empty_think: the opposite of ``dataset_conf.do_think`` upstream: put an empty ``<think>`` block
            behind the assistant tag.
        languages: ISO codes of the languages it can be told to write.
    """

    system_turn: bool
    empty_think: bool
    languages: tuple[str, ...]


@dataclass(frozen=True)
class FunASRNanoConfig:
    """Everything the checkpoint states that the model, the frontend and the prompt need."""

    frontend: FrontendConfig
    encoder: SANMConfig
    adaptor: AdaptorConfig
    llm: Qwen3Config
    ctc: CTCConfig | None
    prompt: PromptConfig
    stop_token_ids: tuple[int, ...]


class FunASRNano(nn.Module):
    """The composed model. Attribute names are the checkpoint's keys."""

    def __init__(self, config: FunASRNanoConfig):
        super().__init__()
        self.audio_encoder = SANMEncoder(config.encoder)
        self.audio_adaptor = Adaptor(config.adaptor)
        self.llm = Qwen3(config.llm)
        if config.ctc is not None:
            self.ctc_decoder = Adaptor(config.ctc.decoder)
            self.ctc = CTCHead(config.ctc.decoder.output_dim, config.ctc.vocab_size)
        self.config = config

    def audio_rows(self, encoded: mx.array, lengths: list[int]) -> list[mx.array]:
        """Rows that stand for the audio in the prompt, in the decoder's type.

        (batch, frames, encoder width), with valid frames of each row -> one (audio tokens, hidden) array a row.
        """
        adapted = self.audio_adaptor(encoded, batch_lengths(lengths, encoded.shape[1]))
        adapted = adapted.astype(self.llm.model.norm.weight.dtype)
        counts = [audio_token_count(length, self.config.adaptor) for length in lengths]
        return [adapted[row, :count] for row, count in enumerate(counts)]

    def ctc_hidden(self, encoded: mx.array, lengths: list[int]) -> mx.array:
        """(batch, frames, encoder width) -> (batch, frames, CTC width), what the CTC head reads; it needs one."""
        return self.ctc_decoder(encoded, batch_lengths(lengths, encoded.shape[1]))


def batch_lengths(lengths: list[int], frames: int) -> mx.array | None:
    """(batch,) for the masks, or None when no row is padded to ``frames``: no mask is the fastest mask."""
    return None if all(length == frames for length in lengths) else mx.array(lengths)
