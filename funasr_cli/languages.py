"""The languages of the Fun-ASR models, and their names for users and in prompts."""

import re
from dataclasses import dataclass

from funasr_cli.errors import UsageError


@dataclass(frozen=True)
class Language:
    """A language's name in the prompt (which is in Chinese), in English, and in the language itself."""

    prompt_name: str
    english_name: str
    own_names: tuple[str, ...]


LANGUAGES = {
    "zh": Language("中文", "Chinese", ("汉语", "普通话", "Mandarin")),
    "en": Language("英文", "English", ("英语",)),
    "yue": Language("粤语", "Cantonese", ("廣東話", "粵語")),
    "ja": Language("日文", "Japanese", ("日本語", "日语")),
    "ko": Language("韩文", "Korean", ("한국어", "韩语")),
    "vi": Language("越南语", "Vietnamese", ("Tiếng Việt",)),
    "id": Language("印尼语", "Indonesian", ("Bahasa Indonesia",)),
    "th": Language("泰语", "Thai", ("ภาษาไทย", "ไทย")),
    "ms": Language("马来语", "Malay", ("Bahasa Melayu",)),
    "fil": Language("菲律宾语", "Filipino", ("Tagalog", "tl")),
    "ar": Language("阿拉伯语", "Arabic", ("العربية",)),
    "hi": Language("印地语", "Hindi", ("हिन्दी",)),
    "bg": Language("保加利亚语", "Bulgarian", ("български",)),
    "hr": Language("克罗地亚语", "Croatian", ("hrvatski",)),
    "cs": Language("捷克语", "Czech", ("čeština",)),
    "da": Language("丹麦语", "Danish", ("dansk",)),
    "nl": Language("荷兰语", "Dutch", ("Nederlands",)),
    "et": Language("爱沙尼亚语", "Estonian", ("eesti",)),
    "fi": Language("芬兰语", "Finnish", ("suomi",)),
    "el": Language("希腊语", "Greek", ("ελληνικά",)),
    "hu": Language("匈牙利语", "Hungarian", ("magyar",)),
    "ga": Language("爱尔兰语", "Irish", ("Gaeilge",)),
    "lv": Language("拉脱维亚语", "Latvian", ("latviešu",)),
    "lt": Language("立陶宛语", "Lithuanian", ("lietuvių",)),
    "mt": Language("马耳他语", "Maltese", ("Malti",)),
    "pl": Language("波兰语", "Polish", ("polski",)),
    "pt": Language("葡萄牙语", "Portuguese", ("português",)),
    "ro": Language("罗马尼亚语", "Romanian", ("română",)),
    "sk": Language("斯洛伐克语", "Slovak", ("slovenčina",)),
    "sl": Language("斯洛文尼亚语", "Slovenian", ("slovenščina",)),
    "sv": Language("瑞典语", "Swedish", ("svenska",)),
}

NANO_LANGUAGES = ("zh", "en", "ja")
MLT_LANGUAGES = tuple(LANGUAGES)
AUTO = "auto"


def language_code(name: str) -> str | None:
    """Return the ISO code for a code or name, in any case; a region as in zh-CN is ignored. None if unknown."""
    wanted = name.strip().casefold()
    if re.fullmatch(r"[a-z]{2,3}[-_][a-z0-9-_]+", wanted):
        wanted = re.split(r"[-_]", wanted)[0]
    for code, language in LANGUAGES.items():
        names = (code, language.prompt_name, language.english_name, *language.own_names)
        if wanted in (known.casefold() for known in names):
            return code
    return None


def resolve_language(name: str | None, supported: tuple[str, ...], model: str = "this model") -> str | None:
    """Return the ISO code of the language to request; None for automatic detection.

    Raises:
        UsageError: the language is unknown, or not supported by the model. The message lists those that are.
    """
    if name is None or name.strip().casefold() == AUTO:
        return None
    code = language_code(name)
    if code in supported:
        return code
    known = ", ".join(f"{code} ({LANGUAGES[code].english_name})" for code in supported)
    hint = f"choose from {known}, or auto"
    raise UsageError(f"{model} does not support the language {name!r}", hint, code="language-unknown")
