"""Prompt construction.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``get_prompt``, ``generate_chatml``,
``data_load_speech``). What differs: hotwords that contain control tokens are rejected.
"""

import unicodedata

from tokenizers import Tokenizer

from funasr_cli.errors import UsageError
from funasr_cli.families.fun_asr_nano.config import PromptConfig
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import MAX_PROMPT_TOKENS, TranscribeOptions
from funasr_cli.vocabulary import refuse_control_tokens

SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER_TAG = "<|im_start|>user\n"
ASSISTANT_TAG = "<|im_end|>\n<|im_start|>assistant\n"
EMPTY_THINK = "<think>\n\n</think>\n\n"
HOTWORDS = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n"
    "**上下文信息：**\n\n\n"
    "热词列表：[{words}]\n"
)


def instruction(language: str | None, hotwords: tuple[str, ...], itn: bool) -> str:
    """Return the instruction that precedes the audio in the user's turn; ``language`` is an ISO code or None."""
    context = HOTWORDS.format(words=", ".join(hotwords)) if hotwords else ""
    task = "语音转写" if language is None else f"语音转写成{LANGUAGES[language].prompt_name}"
    return f"{context}{task}{'' if itn else '，不进行文本规整'}："


def prompt_texts(options: TranscribeOptions, config: PromptConfig, *, first: bool = True) -> tuple[str, str]:
    """Return the text before and after the audio embeddings.

    Only the `first` segment of a recording continues the earlier text (`options.prev_text`).

    Raises:
        UsageError: the checkpoint does not support the language.
    """
    language = resolve_language(options.language, config.languages)
    before = SYSTEM_TURN if config.system_turn else ""
    before += USER_TAG + instruction(language, options.hotwords, options.itn)
    written = (options.prev_text or "") if first else ""
    return before, ASSISTANT_TAG + (EMPTY_THINK if config.empty_think else "") + written


def check_hotwords(hotwords: tuple[str, ...], tokenizer: Tokenizer) -> None:
    """Raise a `UsageError` for a hotword that would change the structure of the prompt.

    These contain a line break, a control character or one of the tokenizer's control tokens, such as
    ``<|im_end|>``, or are empty.
    """
    for word in hotwords:
        refuse_control_tokens(f"hotword {word!r}", word, tokenizer)
        if not word.strip():
            raise UsageError(f"hotword {word!r} is empty", "leave it out", code="prompt-text")
        controls = any(unicodedata.category(character) in ("Cc", "Cs") for character in word)
        if word.splitlines() != [word] or controls:
            hint = "remove the line breaks and control characters"
            message = f"hotword {word!r} contains a line break or a control character"
            raise UsageError(message, hint, code="prompt-text")


def prompt_token_ids(
    options: TranscribeOptions, config: PromptConfig, tokenizer: Tokenizer, *, first: bool = True
) -> tuple[list[int], list[int]]:
    """Tokenize the two `prompt_texts` separately: token ids before and after the audio embeddings.

    Raises:
        UsageError: the checkpoint does not support the language, a hotword or the earlier text is not plain text,
            or the prompt has more than `MAX_PROMPT_TOKENS` tokens.
    """
    check_hotwords(options.hotwords, tokenizer)
    refuse_control_tokens("the earlier text", options.prev_text or "", tokenizer)
    texts = prompt_texts(options, config, first=first)
    before, after = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    if (count := len(before) + len(after)) > MAX_PROMPT_TOKENS:
        raise UsageError(
            f"hotwords and earlier text: the prompt has {count} tokens; the limit is {MAX_PROMPT_TOKENS}",
            "remove the least important hotwords, or keep only the end of the earlier text",
            code="prompt-too-long",
        )
    return before, after
