"""Prompt construction.

Source: FunASR ``funasr/models/fun_asr_nano/model.py`` (``get_prompt``, ``generate_chatml``,
``data_template``, ``data_load_speech``). What differs: texts that contain control tokens are rejected; earlier
text (``prev_text``) continues only the recording's turn, where upstream repeats it in every turn; and no turn is
dropped because of its length, as ``max_token_length`` does.
"""

import unicodedata

from tokenizers import Tokenizer

from funasr_cli.errors import UsageError
from funasr_cli.families.fun_asr_nano.config import PromptConfig
from funasr_cli.languages import LANGUAGES, resolve_language
from funasr_cli.options import MAX_PROMPT_TOKENS, TranscribeOptions
from funasr_cli.vocabulary import EMPTY_THINK, refuse_control_tokens

SYSTEM_TEXT = "You are a helpful assistant."
SYSTEM_TURN = "<|im_start|>system\n{text}<|im_end|>\n"
USER_TAG = "<|im_start|>user\n"
END = "<|im_end|>"
AUDIO_MARKS = "<|startofspeech|>", "<|endofspeech|>"  # upstream finds the audio by these; they are not tokens
ASSISTANT_TAG = "<|im_end|>\n<|im_start|>assistant\n"
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
        UsageError: the checkpoint does not support the language, or has no system turn.
    """
    before, after = _pieces(options, config, first=first)
    return "".join(before), after


def _pieces(options: TranscribeOptions, config: PromptConfig, *, first: bool) -> tuple[list[str], str]:
    """Return what is tokenized separately before the audio, and the text after it.

    Each earlier turn is a question with its tags and an answer. No line end follows the answer, as upstream.
    """
    turns = list(options.dialogue)
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    if system and not config.system_turn:
        message = "--dialogue: this model was trained without a system turn"
        raise UsageError(message, "leave out the system turn", code="option-unsupported")
    begin = SYSTEM_TURN.format(text=system or SYSTEM_TEXT) if config.system_turn else ""
    answer_tag = ASSISTANT_TAG + (EMPTY_THINK if config.empty_think else "")
    pieces = []
    for (_, asked), (_, answered) in zip(turns[::2], turns[1::2], strict=True):
        pieces += [f"{begin}{USER_TAG}{asked}{answer_tag}", f"{answered}{END}"]
        begin = ""
    language = resolve_language(options.language, config.languages)
    task = options.instruction or instruction(language, options.hotwords, options.itn)
    written = (options.prev_text or "") if first else ""
    return [*pieces, f"{begin}{USER_TAG}{task}"], answer_tag + written


def check_hotwords(hotwords: tuple[str, ...], tokenizer: Tokenizer) -> None:
    """Raise a `UsageError` for a hotword that would change the structure of the prompt.

    These contain a line break, a control character or one of the tokenizer's control tokens, such as
    ``<|im_end|>``, or are empty.
    """
    for word in hotwords:
        refuse_control_tokens(f"hotword {word!r}", word, tokenizer, AUDIO_MARKS)
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
    """Tokenize `prompt_texts` piece by piece: token ids before and after the audio embeddings.

    Raises:
        UsageError: the checkpoint does not support the language or a system turn, one of the texts is not plain
            text, or the prompt has more than `MAX_PROMPT_TOKENS` tokens.
    """
    check_hotwords(options.hotwords, tokenizer)
    refuse_control_tokens("the earlier text", options.prev_text or "", tokenizer, AUDIO_MARKS)
    refuse_control_tokens("the instruction", options.instruction or "", tokenizer, AUDIO_MARKS)
    for role, text in options.dialogue:
        refuse_control_tokens(f"--dialogue: a text of {role}", text, tokenizer, AUDIO_MARKS)
    pieces, answer = _pieces(options, config, first=first)
    before = [token_id for piece in pieces for token_id in tokenizer.encode(piece, add_special_tokens=False).ids]
    after = tokenizer.encode(answer, add_special_tokens=False).ids
    if (count := len(before) + len(after)) > MAX_PROMPT_TOKENS:
        raise UsageError(
            f"the prompt has {count} tokens; the limit is {MAX_PROMPT_TOKENS}",
            "remove the least important hotwords, and shorten the instruction, earlier turns and earlier text",
            code="prompt-too-long",
        )
    return before, after
