"""What a Fun-ASR-Nano checkpoint states."""

from dataclasses import dataclass

from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.ctc import CTCConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig

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
