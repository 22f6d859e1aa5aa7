"""Prompts, and how long a text may get.

Source: OminiX-MLX ``funasr-qwen4b-mlx/src/model.rs`` and its examples. What differs: formats that took ids
151646 and 151647 for marks of speech are left out. The published account of the training has no prompt at all.
"""

from typing import NamedTuple

from funasr_cli.vocabulary import EMPTY_THINK

TRANSCRIBE, TRANSLATE = "transcribe", "translate"  # tasks
# Most tokens for each second, and limits of their number. Upstream tells the tasks apart by the prompt.
TOKENS_PER_S = {TRANSCRIBE: 5, TRANSLATE: 8}
FEWEST_TOKENS, MOST_TOKENS = 30, 400


class Texts(NamedTuple):
    """The text before and after the audio, each tokenized by itself."""

    before: str
    after: str


CURRENT = "current"
FORMATS: dict[str, dict[str, Texts]] = {  # by the configuration's `prompt_format`, then by task
    CURRENT: {
        TRANSCRIBE: Texts("语音转写成中文：", "只输出转写文字，不要分析或解释："),
        TRANSLATE: Texts("Translate the speech to English:", EMPTY_THINK),
    },
    "chat": {  # the example for long recordings
        TRANSCRIBE: Texts(
            "<|im_start|>system\n你是语音转写系统。直接输出语音内容的中文文字，不要添加任何解释、评论或格式。"
            "<|im_end|>\n<|im_start|>user\n",
            f"<|im_end|>\n<|im_start|>assistant\n{EMPTY_THINK}",
        ),
    },
    "readme": {TRANSCRIBE: Texts("这是一段中文语音，请转录：", "")},  # of the adaptor, for PyTorch
    "none": {TRANSCRIBE: Texts("", "")},  # as in training
}
# The decoder may repeat its instruction, or these words of it, instead of following it.
ECHOES = ("只输出转写文字", "不要分析或解释")


def budget(duration_s: float, task: str) -> int:
    """Return the most tokens of a text for audio of this duration."""
    return min(MOST_TOKENS, max(FEWEST_TOKENS, int(duration_s * TOKENS_PER_S[task])))
