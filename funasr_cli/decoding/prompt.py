"""The one builder of prompts.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``get_prompt``, ``generate_chatml``,
``data_load_speech``). What differs: hotwords that would be read as control tokens are refused.
"""

import re
import unicodedata

from tokenizers import Tokenizer

from funasr_cli.decoding.languages import LANGUAGES, resolve_language
from funasr_cli.errors import UsageError
from funasr_cli.models.fun_asr_nano import PromptConfig
from funasr_cli.options import TranscribeOptions

SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER_TAG = "<|im_start|>user\n"
ASSISTANT_TAG = "<|im_end|>\n<|im_start|>assistant\n"
EMPTY_THINK = "<think>\n\n</think>\n\n"
CONTROL_TOKEN = re.compile(r"<\||</?[a-z_]+>")  # <|im_end|>, <think>, </tool_call>
HOTWORDS = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n"
    "**上下文信息：**\n\n\n"
    "热词列表：[{words}]\n"
)


def instruction(language: str | None, hotwords: tuple[str, ...], itn: bool) -> str:
    """What the user's turn says in front of the audio; ``language`` is an ISO code or None."""
    context = HOTWORDS.format(words=", ".join(hotwords)) if hotwords else ""
    task = "语音转写" if language is None else f"语音转写成{LANGUAGES[language].prompt_name}"
    return f"{context}{task}{'' if itn else '，不进行文本规整'}："


def prompt_texts(options: TranscribeOptions, config: PromptConfig) -> tuple[str, str]:
    """Text in front of the audio rows and behind them.

    Raises:
        UsageError: a language that the checkpoint does not have, or a hotword with a control token in it.
    """
    for word in options.hotwords:
        if not _is_plain(word):
            raise UsageError(f"hotword {word!r} is not a word", "leave out line breaks and control tokens")
    language = resolve_language(options.language, config.languages)
    before = SYSTEM_TURN if config.system_turn else ""
    before += USER_TAG + instruction(language, options.hotwords, options.itn)
    return before, ASSISTANT_TAG + (EMPTY_THINK if config.empty_think else "")


def _is_plain(word: str) -> bool:
    """Whether a hotword is text on one line that no tokenizer of Qwen's reads as a control token."""
    has_controls = any(unicodedata.category(character) in ("Cc", "Cs") for character in word)
    return bool(word.strip()) and word.splitlines() == [word] and not has_controls and not CONTROL_TOKEN.search(word)


def prompt_token_ids(
    options: TranscribeOptions, config: PromptConfig, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
    """Token ids in front of the audio rows and behind them; each piece is tokenized on its own."""
    before, after = (
        tokenizer.encode(text, add_special_tokens=False).ids for text in prompt_texts(options, config)
    )
    return before, after
