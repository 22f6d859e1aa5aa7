"""The exact text of prompts, and the names of languages."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused
from tokenizers import Tokenizer, models

from funasr_cli.families.fun_asr_nano.config import PromptConfig
from funasr_cli.families.fun_asr_nano.prompt import check_hotwords, prompt_texts, prompt_token_ids
from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES, NANO_LANGUAGES, language_code, resolve_language
from funasr_cli.options import MAX_PROMPT_TOKENS, TranscribeOptions

# Upstream's names, copied from the MLT checkpoint's training list.
MLT_NAMES = (
    "中文 英文 粤语 日文 韩文 越南语 印尼语 泰语 马来语 菲律宾语 阿拉伯语 印地语 保加利亚语 克罗地亚语 捷克语 "
    "丹麦语 荷兰语 爱沙尼亚语 芬兰语 希腊语 匈牙利语 爱尔兰语 拉脱维亚语 立陶宛语 马耳他语 波兰语 葡萄牙语 "
    "罗马尼亚语 斯洛伐克语 斯洛文尼亚语 瑞典语"
).split()
TASKS = {(None, True): "语音转写：", (None, False): "语音转写，不进行文本规整："}
for code, name in zip(MLT_LANGUAGES, MLT_NAMES, strict=True):
    TASKS[code, True] = f"语音转写成{name}："
    TASKS[code, False] = f"语音转写成{name}，不进行文本规整："
CONTEXT = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n**上下文信息：**\n\n\n"
)
CONTEXTS = {
    (): "",
    ("滨海",): f"{CONTEXT}热词列表：[滨海]\n",
    ("a b", "c{x}", "]"): f"{CONTEXT}热词列表：[a b, c{{x}}, ]]\n",
}
SYSTEM = {False: "", True: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"}
THINK = {False: "", True: "<think>\n\n</think>\n\n"}


def texts(language: str | None = None, *, system: bool = True, think: bool = False, **options: object) -> tuple:
    config = PromptConfig(system_turn=system, empty_think=think, languages=MLT_LANGUAGES)
    return prompt_texts(TranscribeOptions(language=language, **options), config)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task[0]}-{task[1]}")
def test_every_combination(task: tuple[str | None, bool]) -> None:
    language, itn = task
    for system, think, words in itertools.product((False, True), (False, True), CONTEXTS):
        before, after = texts(language, system=system, think=think, itn=itn, hotwords=words)
        assert before == f"{SYSTEM[system]}<|im_start|>user\n{CONTEXTS[words]}{TASKS[task]}"
        assert after == f"<|im_end|>\n<|im_start|>assistant\n{THINK[think]}"


TURNS = (("user", "Who?"), ("assistant", "Ann."))


def test_an_instruction_replaces_all_of_the_request() -> None:
    before, after = texts(instruction=" 翻译成英文：\n")
    assert before == f"{SYSTEM[True]}<|im_start|>user\n 翻译成英文：\n"
    assert after == "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("think", [False, True])
def test_earlier_turns(think: bool) -> None:
    """The system turn is first and may be replaced; earlier text continues only the turn of the recording."""
    answer = f"<|im_end|>\n<|im_start|>assistant\n{THINK[think]}"
    turn = f"<|im_start|>user\nWho?{answer}Ann.<|im_end|>"
    question = f"<|im_start|>user\n{TASKS[None, True]}"
    replaced = SYSTEM[True].replace("You are a helpful assistant.", "Be {brief}.")
    for system, dialogue, begin in (
        (True, TURNS, SYSTEM[True]), (False, TURNS, ""), (True, (("system", "Be {brief}."), *TURNS), replaced),
    ):  # fmt: skip
        before, after = texts(system=system, think=think, dialogue=dialogue, prev_text="So")
        assert (before, after) == (f"{begin}{turn}{question}", f"{answer}So")
    assert texts(dialogue=[*TURNS, *TURNS], think=think)[0].count(turn) == 2
    with refused("option-unsupported", "--dialogue"):
        texts(system=False, dialogue=(("system", "Be brief."),))


@pytest.mark.parametrize(
    "dialogue",
    [
        (("user", "a"),), (("assistant", "a"), ("user", "b")), (*TURNS, ("system", "a")), TURNS * 5, ("user", "a"),
        (("user", "a", "b"), ("assistant", "b")), (("user", " "), ("assistant", "b")), (("user", 3), TURNS[1]),
        (("tool", "a"), ("assistant", "b")), "user",
    ],
)  # fmt: skip
def test_turns_that_are_no_conversation_are_refused(dialogue: Any) -> None:
    with refused("option-value", "--dialogue"):
        TranscribeOptions(dialogue=dialogue)


@pytest.mark.parametrize("others", [{"language": "en"}, {"hotwords": ("a",)}, {"itn": False}])
def test_an_instruction_refuses_what_it_replaces(others: dict[str, Any]) -> None:
    with refused("options-conflict", "--instruction"):
        TranscribeOptions(instruction="Translate:", **others)
    assert TranscribeOptions(instruction="Translate:", language="auto", dialogue=list(TURNS), prev_text="So")
    with refused("option-value", "--instruction"):
        TranscribeOptions(instruction=" \n")


@pytest.mark.parametrize("text", ["a<|im_end|>", "[INST]", "a<|startofspeech|>!b.wav<|endofspeech|>"])
def test_control_tokens_in_instructions_and_turns_are_refused(tokenizer: Tokenizer, text: str) -> None:
    config = PromptConfig(system_turn=True, empty_think=False, languages=NANO_LANGUAGES)
    for options in (
        TranscribeOptions(instruction=text), TranscribeOptions(dialogue=(("user", "a"), ("assistant", text))),
        TranscribeOptions(dialogue=(("system", text), *TURNS)),
    ):  # fmt: skip
        with refused("prompt-text"):
            prompt_token_ids(options, config, tokenizer)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(["<|im_end|>", "[INST]"])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


@pytest.mark.parametrize(
    "word",
    [*(f"a{token} b" for token in ("<|im_end|>", "[INST]", "<think>", "</think>")),
     "a\nb", "", "  ", "\n", "a\rb", "a\udcff", "a\n", "\u2028", "\x1b[31m"],
)  # fmt: skip
def test_control_tokens_and_line_breaks_are_refused(tokenizer: Tokenizer, word: str) -> None:
    with refused("prompt-text", repr(word)):
        check_hotwords(("fine", word), tokenizer)


def prompt_of(words: int, earlier: int, **others: Any) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt whose tokens are characters."""
    tokenizer = Tokenizer(models.BPE(vocab={"<|unk|>": 0}, merges=[], unk_token="<|unk|>"))
    config = PromptConfig(system_turn=False, empty_think=False, languages=NANO_LANGUAGES)
    options = TranscribeOptions(hotwords=("滨",) * words, prev_text="a" * earlier, **others)
    return prompt_token_ids(options, config, tokenizer)


@pytest.mark.parametrize(("words", "earlier"), [(1, 0), (0, 1)])
def test_the_limit_counts_tokens(words: int, earlier: int) -> None:
    """The limit is on the sum of hotwords and earlier text: exactly as many are accepted, one more is not."""
    room = (MAX_PROMPT_TOKENS - sum(map(len, prompt_of(words, earlier)))) // (3 * words + earlier)
    assert room > 1000
    at_most = room * (words > 0) + words, room * (earlier > 0) + earlier
    taken = sum(map(len, prompt_of(*at_most)))
    assert MAX_PROMPT_TOKENS - 2 <= taken <= MAX_PROMPT_TOKENS
    with refused("prompt-too-long", MAX_PROMPT_TOKENS, MAX_PROMPT_TOKENS + 1):
        prompt_of(at_most[0], at_most[1] + MAX_PROMPT_TOKENS - taken + 1)


@pytest.mark.parametrize(
    "of", [lambda text: {"instruction": text}, lambda text: {"dialogue": [*TURNS, ("user", text), TURNS[1]]}]
)
def test_the_limit_counts_instructions_and_turns(of: Any) -> None:
    taken = sum(map(len, prompt_of(0, 0, **of("a"))))
    assert sum(map(len, prompt_of(0, 0, **of("a" * (MAX_PROMPT_TOKENS - taken + 1))))) == MAX_PROMPT_TOKENS
    with refused("prompt-too-long", MAX_PROMPT_TOKENS, MAX_PROMPT_TOKENS + 1):
        prompt_of(0, 0, **of("a" * (MAX_PROMPT_TOKENS - taken + 2)))


def test_plain_words_are_accepted(tokenizer: Tokenizer) -> None:
    """Words that only look like control tokens are accepted."""
    check_hotwords(("vector<int>", "<b>", "a<|b", "C++", "滨海 新区", "[red]", "it's"), tokenizer)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("zh", "zh"), ("ZH", "zh"), (" zh ", "zh"), ("中文", "zh"), ("Chinese", "zh"), ("mandarin", "zh"),
        ("日本語", "ja"), ("日文", "ja"), ("한국어", "ko"), ("TIẾNG VIỆT", "vi"), ("deutsch", "de"), ("", None),
        ("auto", None), ("ČEŠTINA", "cs"), ("Ελληνικά", "el"), ("tl", "fil"), ("zh-CN", "zh"),
        ("en_US", "en"), ("zh-Hans-CN", "zh"),
        ("de-DE", "de"), ("klingon", None), ("-", None),
    ],
)  # fmt: skip
def test_language_names(name: str, code: str | None) -> None:
    assert language_code(name) == code


@given(st.sampled_from(sorted(LANGUAGES)), st.data())
def test_every_name_of_every_language_in_any_case(code: str, data: st.DataObject) -> None:
    language = LANGUAGES[code]
    names = [code, *filter(None, [language.prompt_name]), language.english_name, *language.own_names]
    name = data.draw(st.sampled_from(names))
    assert language_code(data.draw(st.sampled_from([name, name.upper(), name.lower(), f" {name}"]))) == code


@pytest.mark.parametrize("name", [None, "auto", "AUTO", " Auto "])
def test_automatic_language(name: str | None) -> None:
    assert resolve_language(name, NANO_LANGUAGES) is None


@pytest.mark.parametrize("name", ["ko", "Korean", "klingon", "", "zh,en"])
def test_other_languages_list_those_of_the_checkpoint(name: str) -> None:
    with refused("language-unknown", repr(name), "zh (Chinese), en (English), ja (Japanese)"):
        resolve_language(name, NANO_LANGUAGES)
