"""Options that a model does not support are refused and others are not. Every option is covered."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from support.errors import refused
from support.speaking import SpeakingModel

from funasr_cli.capabilities import (
    BEST_EFFORT,
    CHECKED_SEPARATELY,
    NEEDS,
    NEEDS_IF_TYPED,
    UNIVERSAL,
    Capabilities,
    refuse_aligner,
    refuse_unaligned_language,
    refuse_unsupported,
    supported,
)
from funasr_cli.cli.app import app
from funasr_cli.errors import UsageError
from funasr_cli.options import DEFAULTS, FSMN, NO_DRAFT, TranscribeOptions

LANGUAGES = ("zh", "en")
NOTHING = Capabilities(LANGUAGES)
EVERYTHING = Capabilities(LANGUAGES, **{field.name: True for field in fields(Capabilities)[1:-1]})
ASKED: dict[str, Any] = {  # by field: a value that is not the default
    "language": "en", "hotwords": ("Kubernetes",), "prev_text": "So", "itn": False, "max_tokens": 5,
    "exact_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 5, "seed": 5, "confidence": True, "ctc": True,
    "draft": NO_DRAFT, "second_opinion": False, "word_times": True, "segment_times": True, "translate": True,
    "translate_to": "de", "vad": False, "vad_model": FSMN, "vad_threshold": 0.3, "min_pause_s": 0.3, "join_s": 3.0,
    "max_segment_s": 20.0, "batch_size": 2, "speakers": (2, 4), "speaker_threshold": 0.5,
    "speaker_names": ("Ann",), "instruction": "Translate:", "dialogue": (("user", "a"), ("assistant", "b")),
    "speaker_method": "funasr", "known_speakers": {"Ann": "ann.wav"},
    "speaker_embeddings": True,
}  # fmt: skip
SAMPLING_OPTIONS = ("top_p", "top_k", "seed")
NEEDED = {**dict.fromkeys(SAMPLING_OPTIONS, "temperature"), "translate_to": "translate"}  # another option


def asking(field: str) -> TranscribeOptions:
    """Return the defaults with this field changed, and the option that it needs, if it needs one."""
    others = {name: ASKED[name] for name in [NEEDED.get(field)] if name}
    return TranscribeOptions(**(others | {field: ASKED[field]}))


def test_every_option_declares_its_needs() -> None:
    """A new option must be added to one of the tables: a need, best effort, universal, or its own rule."""
    tables = [*NEEDS, *BEST_EFFORT, *UNIVERSAL, *CHECKED_SEPARATELY]
    assert sorted(tables) == sorted(ASKED) == sorted(field.name for field in fields(TranscribeOptions))
    assert all(ASKED[name] != getattr(DEFAULTS, name) for name in ASKED)


def test_needs_name_existing_options_and_capabilities() -> None:
    from typer.main import get_command

    transcribe = get_command(app).commands["transcribe"]  # type: ignore[attr-defined]
    known = {name for parameter in transcribe.params for name in parameter.opts}
    needs = NEEDS | NEEDS_IF_TYPED
    options = {need.option.split()[0] for field, need in needs.items() if field != "exact_tokens"}  # of `bench`
    assert options <= known
    assert {need.capability for need in needs.values()} <= {field.name for field in fields(Capabilities)}


@pytest.mark.parametrize("field", NEEDS)
def test_what_a_model_lacks_is_refused(field: str) -> None:
    """The error names option and model. A model that has only this capability accepts the option."""
    option, capability = NEEDS[field]
    named = "--temperature" if field in SAMPLING_OPTIONS else option
    with refused("option-unsupported", named, "Speaking") as caught:
        refuse_unsupported(asking(field), NOTHING, "Speaking")
    assert isinstance(caught.value, UsageError)
    translates = {"translation": True} if field == "translate_to" else {}
    refuse_unsupported(asking(field), replace(NOTHING, **{capability: True}, **translates), "Speaking")
    without = replace(EVERYTHING, **{capability: False})
    with refused("option-unsupported", named):
        refuse_unsupported(asking(field), without, "Speaking")


@pytest.mark.parametrize("field", NEEDS_IF_TYPED)
def test_needs_of_explicit_options(field: str) -> None:
    """An explicit draft is refused even as "off" if the model has no drafts; a setting is ignored."""
    typed = {field: f"--as-typed-{field}"}
    with refused("option-unsupported", f"--as-typed-{field}", "Speaking"):
        refuse_unsupported(DEFAULTS, NOTHING, "Speaking", typed=typed)
    refuse_unsupported(DEFAULTS, replace(NOTHING, **{NEEDS_IF_TYPED[field].capability: True}), "M", typed=typed)
    refuse_unsupported(TranscribeOptions(draft=NO_DRAFT), NOTHING, "Speaking")
    assert supported(DEFAULTS, NOTHING, typed=typed) == DEFAULTS


def test_errors_name_the_option_as_given() -> None:
    """A setting, which would be ignored, is not named."""
    with refused("option-unsupported", "--hotwords-file"):
        refuse_unsupported(asking("hotwords"), NOTHING, "Speaking", typed={"hotwords": "--hotwords-file"})
    options = TranscribeOptions(temperature=0.5, seed=3, max_tokens=5)
    with refused("option-unsupported", "--seed") as caught:
        refuse_unsupported(options, NOTHING, "Speaking", typed={"seed": "--seed"})
    assert "--temperature" not in caught.value.message


@pytest.mark.parametrize("field", [*BEST_EFFORT, *UNIVERSAL, "language"])
def test_options_without_needs_work_with_every_model(field: str) -> None:
    able = replace(NOTHING, drafts=True)
    refuse_unsupported(asking(field), able, "Speaking", typed={field: f"--{field}"})


def test_defaults_work_with_every_model() -> None:
    """They also work if given explicitly, except digits and drafts."""
    typed = dict.fromkeys(set(ASKED) - {"itn", "draft"}, "--typed")
    refuse_unsupported(DEFAULTS, NOTHING, "Speaking", longest_segment_s=10.0, typed=typed)


@pytest.mark.parametrize("itn", [True, False])
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("switch", [True, False])
@pytest.mark.parametrize("digits", [True, False])
def test_numbers_as_digits(itn: bool, typed: bool, switch: bool, digits: bool) -> None:
    """A model without the switch accepts what it always does, and the default unless it was given explicitly."""
    able = replace(NOTHING, itn_switch=switch, digits=digits)
    options, names = TranscribeOptions(itn=itn), {"itn": "--itn" if itn else "--no-itn"} if typed else {}
    if switch or itn == digits or (itn and not typed):
        refuse_unsupported(options, able, "Speaking", typed=names)
    else:
        with refused("option-unsupported", "--itn" if itn else "--no-itn", "Speaking"):
            refuse_unsupported(options, able, "Speaking", typed=names)


def test_segments_that_are_too_long_for_the_model() -> None:
    refuse_unsupported(TranscribeOptions(max_segment_s=40.0), NOTHING, "Speaking", longest_segment_s=40.0)
    with refused("option-unsupported", "--max-segment", "Speaking", 41, 40):
        refuse_unsupported(TranscribeOptions(max_segment_s=41.0), NOTHING, "Speaking", longest_segment_s=40.0)
    refuse_unsupported(DEFAULTS, NOTHING, "Speaking", longest_segment_s=10.0)


def test_a_language_that_the_model_does_not_have() -> None:
    with refused("language-unknown", "ja", "zh", "en"):
        refuse_unsupported(TranscribeOptions(language="ja"), EVERYTHING, "Speaking")


def test_speakers_within_one_translation() -> None:
    """A model that translates whole segments gives none for each speaker. What comes from a setting is dropped."""
    able = replace(NOTHING, translation=True)
    both = TranscribeOptions(speakers=(1, None), translate=True)
    speakers, translate = {"speakers": "--as-typed-speakers"}, {"translate": "--as-typed-translate"}
    for typed in ({}, speakers, translate, speakers | translate):
        with refused("options-conflict", "Speaking", "--translator", *typed.values()):
            refuse_unsupported(both, able, "Speaking", typed=typed)
    assert supported(both, able, typed=speakers | translate) == both
    assert supported(both, able, typed=translate) == both
    assert supported(both, able, typed=speakers) == replace(both, translate=False)
    for fine in (replace(both, translate=False), replace(both, speakers=None)):
        refuse_unsupported(fine, able, "Speaking")
        assert supported(fine, able) == fine
    refuse_unsupported(both, NOTHING.with_translator(), "Speaking")
    assert supported(both, able.with_translator()) == both
    assert supported(both, NOTHING, typed=speakers) == replace(both, translate=False)
    with refused("option-unsupported", "--translate"):
        refuse_unsupported(both, NOTHING, "Speaking")


def test_word_times_that_the_model_does_not_have() -> None:
    """The error names the option that needs them, with the hint of the model's family."""
    able = replace(EVERYTHING, word_times=False, hints={"word_times": "buy a watch"})
    with refused("option-unsupported", "--timestamps word", "Speaking", "buy a watch"):
        refuse_unsupported(asking("word_times"), able, "Speaking")
    with refused("option-unsupported", "--highlight-words", "Speaking"):
        refuse_unsupported(asking("word_times"), able, "Speaking", typed={"word_times": "--highlight-words"})
    refuse_unsupported(asking("word_times"), replace(NOTHING, word_times=True), "Speaking")


@pytest.mark.parametrize("field", [*NEEDS, "itn", "max_segment_s"])
def test_settings_that_a_model_lacks_are_dropped(field: str) -> None:
    """Only these are dropped. Options given on the command line are kept, and are then refused."""
    able, options = replace(NOTHING, digits=True), asking(field)
    left = supported(options, able, longest_segment_s=10.0, typed={"language": "--lang", "vad": "--vad"})
    refuse_unsupported(left, able, "Speaking", longest_segment_s=10.0)
    expected = dict.fromkeys(filter(None, (field, NEEDED.get(field))))
    assert left == replace(options, **{name: getattr(DEFAULTS, name) for name in expected})
    assert supported(options, able, longest_segment_s=10.0, typed={field: "--typed"}) == options
    assert supported(options, EVERYTHING, longest_segment_s=40.0) == options


def test_an_explicit_default_does_not_refuse_settings() -> None:
    """--no-itn, given explicitly, is what the model does anyway; the temperature from a setting is dropped."""
    options = TranscribeOptions(itn=False, temperature=0.5)
    left = supported(options, NOTHING, typed={"itn": "--no-itn"})
    assert left == replace(options, temperature=0.0)
    refuse_unsupported(left, NOTHING, "Speaking", typed={"itn": "--no-itn"})


def test_a_second_model_for_word_times() -> None:
    """It must be needed and have word times. If it lacks the language, the run is refused."""
    model, aligner = (
        SpeakingModel(),
        SpeakingModel("owner/Aligner", replace(NOTHING, word_times=True, alignment=True)),
    )
    refuse_aligner(model, aligner)
    with refused("option-idle", "--align-with", "owner/Aligner"):
        refuse_aligner(aligner, aligner)
    with refused("option-unsupported", "--align-with", "owner/Speaking"):
        refuse_aligner(model, model)
    for language in (None, "auto", "en", "Chinese"):
        refuse_unaligned_language(TranscribeOptions(language=language), aligner)
    with refused("language-unknown", "--align-with", "owner/Aligner", "ja") as caught:
        refuse_unaligned_language(TranscribeOptions(language="ja"), aligner)
    assert isinstance(caught.value, UsageError)


def test_names_list_the_capabilities() -> None:
    assert NOTHING.names() == ()
    assert replace(NOTHING, itn_switch=True, tags=True).names() == ("ITN switch", "tags")
