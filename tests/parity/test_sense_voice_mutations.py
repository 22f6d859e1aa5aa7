"""Test the SenseVoice checks: they must fail on a model that is broken in a known way.

`test_sense_voice_parity.py` shows that they pass on the intact model.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity import sense_voice as parity
from support.parity.sense_voice import CHECKS, References

from funasr_cli.compute.backend import mx
from funasr_cli.families import batches
from funasr_cli.families.sense_voice import config as tables
from funasr_cli.families.sense_voice import model as sense_voice
from funasr_cli.features.cmvn import CMVN
from funasr_cli.models import sanm
from funasr_cli.transcript import Segment

pytestmark = pytest.mark.slow

Mutation = Callable[[pytest.MonkeyPatch, Any], None]


@pytest.fixture(scope="module")
def references(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> References:
    """The references of `test_sense_voice_parity.py`."""
    return parity.run_references(tmp_path_factory, "sense-voice", clips, parity.asked_of(clips))


def without_cmvn(_: pytest.MonkeyPatch, model: Any) -> None:
    model.cmvn = lambda rows: rows


def scaled_before_shifted(_: pytest.MonkeyPatch, model: Any) -> None:
    cmvn = model.cmvn
    model.cmvn = lambda rows: rows * cmvn.scale + cmvn.shift


def splice_index_as_shift(_: pytest.MonkeyPatch, model: Any) -> None:
    """Take the splice index, the first bracket in the file, for the shift."""
    model.cmvn = CMVN(np.zeros_like(model.cmvn.shift), model.cmvn.shift)


def queries_left_out(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    """The frames exist, but are masked like padding."""
    model.network.embed.weight = mx.zeros_like(model.network.embed.weight)


def queries_at_the_end(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    right_pad = batches.right_pad
    monkeypatch.setattr(
        batches, "right_pad", lambda rows: right_pad([mx.roll(row, -tables.QUERIES, axis=0) for row in rows])
    )


def emotion_and_event_swapped(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(tables, "FIXED_ROWS", tables.FIXED_ROWS[::-1])


def languages_one_row_off(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    moved = {language: row + 1 for language, row in tables.LANGUAGE_ROWS.items()}
    monkeypatch.setattr(tables, "LANGUAGE_ROWS", moved)


def digits_and_words_swapped(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    swapped = {itn: tables.ITN_ROWS[not itn] for itn in tables.ITN_ROWS}
    monkeypatch.setattr(tables, "ITN_ROWS", swapped)


def positions_restarted_after_queries(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    positions = sanm.sinusoidal_positions

    def restarted(frames: int, depth: int) -> mx.array:
        return mx.concatenate([positions(tables.QUERIES, depth), positions(frames - tables.QUERIES, depth)])

    monkeypatch.setattr(sanm, "sinusoidal_positions", restarted)


def queries_not_scaled(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.embed.weight = model.network.embed.weight / model.network.encoder._input_scale


def without_tp_norm(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.encoder.tp_norm = lambda x: x


def without_tp_layers(_: pytest.MonkeyPatch, model: Any) -> None:
    model.network.encoder.tp_encoders = []


def last_label_as_blank(_: pytest.MonkeyPatch, model: Any) -> None:
    model.config = dataclasses.replace(model.config, blank_id=model.config.vocab_size - 1)


def text_from_the_first_frame(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(tables, "QUERIES", 0)


def text_one_frame_late(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    monkeypatch.setattr(tables, "QUERIES", tables.QUERIES + 1)


def tags_of_the_next_query(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    original = model.tag_probabilities
    model.tag_probabilities = lambda hidden, query, tags: original(hidden, query + 1, tags)


def other_names_of_emotions(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    tags, names = tables.EMOTION_TAGS.keys(), [*tables.EMOTION_TAGS.values()]
    monkeypatch.setattr(tables, "EMOTION_TAGS", dict(zip(tags, names[1:] + names[:1], strict=True)))


def other_names_of_events(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    tags, names = tables.EVENT_TAGS.keys(), [*tables.EVENT_TAGS.values()]
    monkeypatch.setattr(tables, "EVENT_TAGS", dict(zip(tags, names[1:] + names[:1], strict=True)))


def a_tag_too_many(monkeypatch: pytest.MonkeyPatch, _: Any) -> None:
    def tagged(*fields: Any, tags: tuple[str, ...], **more: Any) -> Segment:
        return Segment(*fields, tags=(*tags, "music"), **more)

    monkeypatch.setattr(sense_voice, "Segment", tagged)


MUTATIONS: dict[Mutation, str] = {  # mutation -> the check that must detect it
    without_cmvn: "features", scaled_before_shifted: "features", splice_index_as_shift: "features",
    queries_left_out: "encoder", queries_at_the_end: "encoder", emotion_and_event_swapped: "encoder",
    languages_one_row_off: "encoder", digits_and_words_swapped: "encoder",
    positions_restarted_after_queries: "encoder", queries_not_scaled: "encoder", without_tp_norm: "encoder",
    without_tp_layers: "encoder", last_label_as_blank: "text", text_from_the_first_frame: "text",
    text_one_frame_late: "text", tags_of_the_next_query: "text",
    other_names_of_emotions: "text", other_names_of_events: "text", a_tag_too_many: "text",
}  # fmt: skip


def check_all(check: parity.Check, model: Any, rows: list[parity.Row]) -> None:
    for row, ours in zip(rows, parity.compute(model, rows), strict=True):
        check(model, ours, row)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_checks_detect_mutations(
    references: References, monkeypatch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    """One of three clips suffices: a mutation may change nothing in the others."""
    rows = [references.cases[f"{clip}-auto-itn"][0] for clip in ("zh-2.5s", "en-1s", "en-8k-stereo")]
    model, check = parity.load(references.random), CHECKS[MUTATIONS[mutate]]
    check_all(check, model, rows)
    mutate(monkeypatch, model)
    with pytest.raises(AssertionError):
        check_all(check, model, rows)
