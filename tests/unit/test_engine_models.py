"""Recordings with different options in one session of a real model: each text is as if alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.native import LIBRARY, WITHOUT

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import open_recording
from funasr_cli.errors import UsageError
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.engine import Engine
from funasr_cli.scheduling.events import Event, Failed, Finished
from funasr_cli.transcript import Segment

CLIPS = [clip.path for clip in demo.clips()]
NANO = [
    DEFAULTS, replace(DEFAULTS, language="en"), replace(DEFAULTS, hotwords=("meeting", "Kazan", "tomorrow")),
    replace(DEFAULTS, prev_text="We met at ten."), replace(DEFAULTS, confidence=True, word_times=True),
    replace(DEFAULTS, max_tokens=4), replace(DEFAULTS, itn=False, second_opinion=False),
    replace(DEFAULTS, temperature=0.7), replace(DEFAULTS, draft="off", ctc=True), replace(DEFAULTS, language="zh"),
    replace(DEFAULTS, instruction="Listen, and write:"),
    replace(DEFAULTS, dialogue=(("user", "Who?"), ("assistant", "Ann."))),
]  # fmt: skip


def together(
    recognizer: Recognizer, recordings: list[tuple[Path, TranscribeOptions]]
) -> list[tuple[Segment, ...]]:
    """Transcribe recordings with one engine, at the same time."""
    found: dict[int, tuple[Segment, ...]] = {}
    engine = Engine()

    def hear(index: int, event: Event) -> None:
        assert not isinstance(event, Failed), event.error
        if isinstance(event, Finished):
            found[index] = event.transcript.segments
        if len(found) == len(recordings):
            engine.stop()

    for index, (path, options) in enumerate(recordings):
        opener = partial(open_recording, path, recognizer.sample_rate_hz)
        engine.submit(
            lambda source, opener=opener, options=options: (  # type: ignore[misc]
                recognizer.model,
                recognizer.job(source, opener, options)[0],
            ),
            partial(hear, index),
        )
    engine.run()
    return [found[index] for index in range(len(recordings))]


def shown(segments: tuple[Segment, ...]) -> list[tuple]:
    """Return what must not depend on the other rows: everything but the last bits of probabilities."""
    return [
        (one.text, one.stop_reason, one.tokens, one.start_s, one.end_s, len(one.scores), one.ctc_text,
         one.language, [(word.text, word.start_s, word.end_s) for word in one.words])
        for one in segments
    ]  # fmt: skip


def assert_as_alone(recognizer: Recognizer, recordings: list[tuple[Path, TranscribeOptions]]) -> None:
    alone = [recognizer.transcribe(path, options).segments for path, options in recordings]
    assert list(map(shown, together(recognizer, recordings))) == list(map(shown, alone))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mlx", "native"])
def test_recordings_with_options_of_their_own_as_if_alone(engine: str) -> None:
    if engine == "native" and not LIBRARY:
        pytest.skip(WITHOUT)
    recognizer = funasr_cli.load("demo", engine=engine)
    assert_as_alone(recognizer, list(zip([*CLIPS, *CLIPS[:2]], NANO, strict=True)))
    assert_as_alone(recognizer, [(CLIPS[3], options) for options in NANO[:5]])


@pytest.mark.parametrize(
    "options", [replace(DEFAULTS, hotwords=("<|im_end|>",)), replace(DEFAULTS, language="ko")]
)
def test_what_a_model_does_not_take_is_refused_before_it_joins_others(options: TranscribeOptions) -> None:
    with pytest.raises(UsageError):
        funasr_cli.load("demo").job(1, partial(open_recording, CLIPS[0], 16000), options)


@pytest.mark.slow
def test_languages_in_one_session_of_a_model_without_prompts(small_sense_voice: Path) -> None:
    recognizer = funasr_cli.load(str(small_sense_voice))
    options = [DEFAULTS, *(replace(DEFAULTS, language=code, word_times=code == "en") for code in ("zh", "en"))]
    assert_as_alone(recognizer, [(CLIPS[index], options[index % 3]) for index in range(6)])
