"""The languages of all models, and their names for users and in the prompts of the Fun-ASR models."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from funasr_cli.errors import UsageError


@dataclass(frozen=True)
class Language:
    """A language's name in Fun-ASR's prompt (in Chinese; empty if unknown there), in English, and other names."""

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
    # Unknown to the Fun-ASR models.
    "de": Language("", "German", ("Deutsch",)),
    "es": Language("", "Spanish", ("español", "Castilian")),
    "ru": Language("", "Russian", ("русский",)),
    "fr": Language("", "French", ("français",)),
    "tr": Language("", "Turkish", ("Türkçe",)),
    "ca": Language("", "Catalan", ("català", "Valencian")),
    "it": Language("", "Italian", ("italiano",)),
    "he": Language("", "Hebrew", ("עברית",)),
    "uk": Language("", "Ukrainian", ("українська",)),
    "ta": Language("", "Tamil", ("தமிழ்",)),
    "no": Language("", "Norwegian", ("norsk",)),
    "ur": Language("", "Urdu", ("اردو",)),
    "la": Language("", "Latin", ("latina",)),
    "mi": Language("", "Maori", ("Māori",)),
    "ml": Language("", "Malayalam", ("മലയാളം",)),
    "cy": Language("", "Welsh", ("Cymraeg",)),
    "te": Language("", "Telugu", ("తెలుగు",)),
    "fa": Language("", "Persian", ("فارسی", "Farsi")),
    "bn": Language("", "Bengali", ("বাংলা",)),
    "sr": Language("", "Serbian", ("српски",)),
    "az": Language("", "Azerbaijani", ("azərbaycanca",)),
    "kn": Language("", "Kannada", ("ಕನ್ನಡ",)),
    "mk": Language("", "Macedonian", ("македонски",)),
    "br": Language("", "Breton", ("brezhoneg",)),
    "eu": Language("", "Basque", ("euskara",)),
    "is": Language("", "Icelandic", ("íslenska",)),
    "hy": Language("", "Armenian", ("հայերեն",)),
    "ne": Language("", "Nepali", ("नेपाली",)),
    "mn": Language("", "Mongolian", ("монгол",)),
    "bs": Language("", "Bosnian", ("bosanski",)),
    "kk": Language("", "Kazakh", ("қазақша",)),
    "sq": Language("", "Albanian", ("shqip",)),
    "sw": Language("", "Swahili", ("Kiswahili",)),
    "gl": Language("", "Galician", ("galego",)),
    "mr": Language("", "Marathi", ("मराठी",)),
    "pa": Language("", "Punjabi", ("ਪੰਜਾਬੀ",)),
    "si": Language("", "Sinhala", ("සිංහල",)),
    "km": Language("", "Khmer", ("ខ្មែរ",)),
    "sn": Language("", "Shona", ("chiShona",)),
    "yo": Language("", "Yoruba", ("Yorùbá",)),
    "so": Language("", "Somali", ("Soomaali",)),
    "af": Language("", "Afrikaans", ()),
    "oc": Language("", "Occitan", ()),
    "ka": Language("", "Georgian", ("ქართული",)),
    "be": Language("", "Belarusian", ("беларуская",)),
    "tg": Language("", "Tajik", ("тоҷикӣ",)),
    "sd": Language("", "Sindhi", ("سنڌي",)),
    "gu": Language("", "Gujarati", ("ગુજરાતી",)),
    "am": Language("", "Amharic", ("አማርኛ",)),
    "yi": Language("", "Yiddish", ("ייִדיש",)),
    "lo": Language("", "Lao", ("ລາວ",)),
    "uz": Language("", "Uzbek", ("oʻzbekcha",)),
    "fo": Language("", "Faroese", ("føroyskt",)),
    "ht": Language("", "Haitian Creole", ("Kreyòl ayisyen",)),
    "ps": Language("", "Pashto", ("پښتو",)),
    "tk": Language("", "Turkmen", ("türkmençe",)),
    "nn": Language("", "Nynorsk", ()),
    "sa": Language("", "Sanskrit", ("संस्कृतम्",)),
    "lb": Language("", "Luxembourgish", ("Lëtzebuergesch",)),
    "my": Language("", "Burmese", ("မြန်မာ", "Myanmar")),
    "bo": Language("", "Tibetan", ("བོད་སྐད",)),
    "mg": Language("", "Malagasy", ()),
    "as": Language("", "Assamese", ("অসমীয়া",)),
    "tt": Language("", "Tatar", ("татарча",)),
    "haw": Language("", "Hawaiian", ("ʻŌlelo Hawaiʻi",)),
    "ln": Language("", "Lingala", ("lingála",)),
    "ha": Language("", "Hausa", ()),
    "ba": Language("", "Bashkir", ("башҡортса",)),
    "jv": Language("", "Javanese", ("basa Jawa", "jw")),
    "su": Language("", "Sundanese", ("basa Sunda",)),
}

NANO_LANGUAGES = ("zh", "en", "ja")
MLT_LANGUAGES = tuple(code for code, language in LANGUAGES.items() if language.prompt_name)
# Whisper's language tokens in order, the last one only in large-v3 and turbo. Two differ from our codes.
WHISPER_TOKENS = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la "
    "mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be "
    "tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
WHISPER_TOKEN_OF = {{"tl": "fil", "jw": "jv"}.get(token, token): token for token in WHISPER_TOKENS}
AUTO = "auto"
MOST_LISTED, FIRST_LISTED = 40, 8  # of more languages than this, only the first ones are shown


def language_code(name: str) -> str | None:
    """Return the ISO code for a code or name, in any case; a region as in zh-CN is ignored. None if unknown."""
    wanted = name.strip().casefold()
    if re.fullmatch(r"[a-z]{2,3}[-_][a-z0-9-_]+", wanted):
        wanted = re.split(r"[-_]", wanted)[0]
    for code, language in LANGUAGES.items():
        names = (code, language.prompt_name, language.english_name, *language.own_names)
        if wanted and wanted in (known.casefold() for known in names):
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
    known = listed([f"{code} ({LANGUAGES[code].english_name})" for code in supported])
    hint = f"choose from {known}, or auto"
    raise UsageError(f"{model} does not support the language {name!r}", hint, code="language-unknown")


def listed(languages: Sequence[str]) -> str:
    """List codes or names of a model's languages for people; of many, only the first ones and the number."""
    if len(languages) <= MOST_LISTED:
        return ", ".join(languages)
    more = len(languages) - FIRST_LISTED
    return f"{', '.join(languages[:FIRST_LISTED])} and {more} others (all: funasr models --json)"
