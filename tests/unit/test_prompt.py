"""The exact text of prompts, and the names of languages."""

import itertools

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


def prompt_of(words: int, earlier: int) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt whose tokens are characters."""
    tokenizer = Tokenizer(models.BPE(vocab={"<|unk|>": 0}, merges=[], unk_token="<|unk|>"))
    config = PromptConfig(system_turn=False, empty_think=False, languages=NANO_LANGUAGES)
    options = TranscribeOptions(hotwords=("滨",) * words, prev_text="a" * earlier)
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
