"""The network of a Qwen3 chat model: a decoder alone."""

from funasr_cli.compute.backend import nn
from funasr_cli.families.qwen3.config import Qwen3TextConfig
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.native.qwen3 import NativeQwen3


class Qwen3Network(nn.Module):
    """The decoder as an attribute, since the native engine replaces attributes."""

    def __init__(self, config: Qwen3TextConfig):
        super().__init__()
        self.llm: Qwen3 | NativeQwen3 = Qwen3(config.llm)
