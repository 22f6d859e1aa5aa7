"""Lists of languages that people read."""

import pytest
from support.errors import refused

from funasr_cli.languages import LANGUAGES, MLT_LANGUAGES, WHISPER_TOKEN_OF, listed, resolve_language


def test_a_short_list_is_complete() -> None:
    assert listed(MLT_LANGUAGES).split(", ") == [*MLT_LANGUAGES]


def test_of_a_long_list_only_the_beginning_is_shown() -> None:
    codes = tuple(WHISPER_TOKEN_OF)
    shown = listed(codes)
    assert shown.startswith("en, zh, de, es, ")
    assert f" {len(codes) - 8} others" in shown
    with refused("language-unknown") as caught:
        resolve_language("klingon", codes, "whisper-base")
    assert "de (German)" in caught.value.hint
    assert len(caught.value.hint) < 250


@pytest.mark.parametrize("code", WHISPER_TOKEN_OF)
def test_whispers_languages_are_known(code: str) -> None:
    assert resolve_language(LANGUAGES[code].english_name, tuple(WHISPER_TOKEN_OF)) == code
