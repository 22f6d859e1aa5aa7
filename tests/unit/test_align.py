"""Word times from another model: here the same model, without and with its CTC branch."""

from __future__ import annotations

import dataclasses

import pytest
from support.errors import refused

from funasr_cli import demo
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.families.load import load_model
from funasr_cli.pipeline import Recognizer

CLIPS = demo.clips()


@pytest.fixture(scope="module")
def whole() -> NanoModel:
    return load_model(demo.MODEL)


@pytest.fixture(scope="module")
def bare(whole: NanoModel) -> NanoModel:
    """The same model without its CTC branch."""
    config = dataclasses.replace(whole.config, ctc=None)
    file = dataclasses.replace(whole.loaded.file, config=config)
    return NanoModel(dataclasses.replace(whole.loaded, file=file))


@pytest.mark.parametrize("clip", CLIPS[:3], ids=lambda clip: clip.path.name)
def test_times_equal_those_of_the_own_branch(whole: NanoModel, bare: NanoModel, clip: demo.Clip) -> None:
    own = Recognizer(whole).transcribe(clip.path, word_times=True)
    others = Recognizer(bare, align_with=whole).transcribe(clip.path, word_times=True)
    assert [segment.words for segment in others.segments] == [segment.words for segment in own.segments]
    assert any(segment.words for segment in own.segments)
    assert others.text == own.text
    assert others.timings.post_s > 0


def test_only_if_asked(whole: NanoModel, bare: NanoModel) -> None:
    transcript = Recognizer(bare, align_with=whole).transcribe(CLIPS[0].path)
    assert not any(segment.words for segment in transcript.segments)


def test_without_another_model(bare: NanoModel) -> None:
    with refused("option-unsupported", "word", "sensevoice"):
        Recognizer(bare).transcribe(CLIPS[0].path, word_times=True)


def test_a_language_that_the_other_lacks(whole: NanoModel, bare: NanoModel) -> None:
    other = NanoModel(whole.loaded)
    other.capabilities = dataclasses.replace(other.capabilities, languages=("zh",))
    recognizer = Recognizer(bare, align_with=other)
    with refused("language-unknown", "en"):
        recognizer.transcribe(CLIPS[0].path, language="en", word_times=True)
    assert recognizer.transcribe(CLIPS[0].path, language="en").text, "the other model must not be used"


def test_another_model_without_word_times(bare: NanoModel) -> None:
    with refused("option-unsupported", bare.name):
        Recognizer(bare, align_with=bare)
