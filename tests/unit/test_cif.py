"""Integrate-and-fire and LSTM: against loops in float64 and PyTorch, of any weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_cli.compute.backend import mx
from funasr_cli.models.cif import CIFConfig, Predictor, TimesConfig, character_spans, fire_steps
from funasr_cli.models.lstm import LSTM

WIDTH = 8
TIMES = TimesConfig(3, 0.25, 0.01)


def predictor(seed: int = 0, times: TimesConfig | None = None, bias: float = -1.0) -> Predictor:
    rng, found = np.random.default_rng(seed), Predictor(CIFConfig(WIDTH, 0.45, times))
    for name, module in found.named_modules():
        if name:
            for key, value in module.parameters().items():
                module[key] = mx.array(rng.standard_normal(value.shape).astype(np.float32) / 2)
    found.cif_output["bias"] = mx.array([bias])
    return found


def rows(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((length, WIDTH)).astype(np.float32)


def loop(hidden: np.ndarray, weights: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Integrate and fire frame by frame, in float64."""
    total, frame, fires, tokens = 0.0, np.zeros(WIDTH), list[int](), list[np.ndarray]()
    for step, weight in enumerate(weights.astype(np.float64)):
        row = hidden[step] if step < len(hidden) else np.zeros(WIDTH)
        if total + weight >= 1:
            tokens.append(frame + (1 - total) * row)
            fires.append(step)
            total += weight - 1
            frame = total * row
        else:
            total, frame = total + weight, frame + weight * row
    return fires, np.array(tokens).reshape(-1, WIDTH)


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 80), bias=st.floats(-8, 8))
@settings(max_examples=60, deadline=None)
def test_tokens_fire_where_the_sum_passes_a_whole_number(seed: int, length: int, bias: float) -> None:
    hidden = rows(seed, length)
    found = predictor(seed % 7, bias=bias)(hidden)
    fires, tokens = loop(hidden, found.weights)
    total = found.weights.sum(dtype=np.float64)
    if np.abs(np.cumsum(found.weights, dtype=np.float64) % 1 - 0.5).max() > 0.4999:
        return  # a sum is whole except for rounding
    assert len(found.weights) == length + 1
    assert found.weights[-1] == np.float32(0.45)
    assert found.fires.tolist() == fires
    assert len(found.embeddings) == int(total)
    np.testing.assert_allclose(found.embeddings, tokens, atol=1e-4)


def test_weights_equal_those_of_pytorch() -> None:
    """Convolution, its padding, and the order of its axes."""
    found, hidden = predictor(3), rows(5, 20)
    kernel = torch.from_numpy(found.cif_conv1d.array("weight"))
    context = torch.nn.functional.conv1d(
        torch.from_numpy(hidden).T[None], kernel, torch.from_numpy(found.cif_conv1d.array("bias")), padding=1
    )[0].T.relu()
    output = [torch.from_numpy(found.cif_output.array(name)) for name in ("weight", "bias")]
    expected = torch.sigmoid(torch.nn.functional.linear(context, *output))[:, 0]
    np.testing.assert_allclose(found(hidden).weights[:-1], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("wanted", [1, 3, 9])
def test_a_number_of_tokens_can_be_forced(wanted: int) -> None:
    found = predictor()(rows(1, 30), wanted)
    assert len(found.embeddings) == len(found.fires) == wanted


def test_the_own_number_of_tokens_changes_nothing() -> None:
    hidden = rows(1, 30)
    own = predictor()(hidden)
    np.testing.assert_array_equal(predictor()(hidden, len(own.fires)).weights, own.weights)


def test_silence() -> None:
    found = predictor(bias=-30.0)(rows(0, 20))
    assert found.embeddings.shape == (0, WIDTH)
    assert character_spans(np.zeros(60, np.float32), 0) == []


def test_second_weights_equal_those_of_pytorch() -> None:
    """They add up to the number of tokens; the LSTM reads the row alone, in both directions."""
    found, hidden = predictor(2, TIMES), rows(7, 15)
    arrays = {name: torch.from_numpy(np.array(value)) for name, value in found.blstm.parameters().items()}
    blstm = torch.nn.LSTM(WIDTH, WIDTH, bidirectional=True, batch_first=True)
    blstm.load_state_dict(arrays)
    kernel, bias = (torch.from_numpy(found.upsample_cnn.array(name)) for name in ("weight", "bias"))
    steps = torch.nn.functional.conv_transpose1d(torch.from_numpy(hidden).T[None], kernel, bias, stride=3)
    output = [torch.from_numpy(found.cif_output2.array(name)) for name in ("weight", "bias")]
    with torch.inference_mode():
        raw = torch.sigmoid(torch.nn.functional.linear(blstm(steps.transpose(1, 2))[0][0], *output))[:, 0]
    expected = (0.25 * raw - 0.01).relu().numpy()
    weights = found.fine_weights(hidden, 5)
    assert weights.shape == (45,)
    assert weights.sum() == pytest.approx(5, abs=1e-5)
    np.testing.assert_allclose(weights, expected * 5 / expected.sum(), atol=1e-6)


def test_layers_of_an_lstm_equal_those_of_pytorch() -> None:
    rng, ours = np.random.default_rng(0), LSTM(WIDTH, 2)
    theirs = torch.nn.LSTM(WIDTH, WIDTH, 2, batch_first=True)
    state: dict[str, Any] = {}
    for name, value in ours.parameters().items():
        drawn = rng.standard_normal(value.shape).astype(np.float32)
        ours[name], state[name] = mx.array(drawn), torch.from_numpy(drawn)
    theirs.load_state_dict(state)
    x = rng.standard_normal((3, 11, WIDTH)).astype(np.float32)
    with torch.inference_mode():
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x))[0].numpy(), atol=1e-6)


def spikes(steps: int, *places: int) -> np.ndarray:
    weights = np.zeros(steps, np.float32)
    weights[list(places)] = 1
    return weights


def test_where_second_weights_fire() -> None:
    assert fire_steps(spikes(30, 2, 9, 20)).tolist() == [2, 9, 20]
    assert fire_steps(np.full(8, 0.25, np.float32)).tolist() == [3, 7]


@pytest.mark.parametrize(
    ("weights", "characters", "expected"),
    [
        (spikes(40, 4, 10, 20), 2, [(2.5, 8.5), (8.5, (40 + 18.5) / 2)]),  # half of the rest belongs to the last
        (spikes(22, 4, 10, 20), 2, [(2.5, 8.5), (8.5, 22.0)]),  # a short rest does, too
        (spikes(40, 4, 20, 30), 2, [(2.5, 14.5), (18.5, (40 + 28.5) / 2)]),  # silence after 12 steps
        (spikes(60, 4, 10, 40), 2, [(2.5, 8.5), (8.5, 20.5)]),  # the rest is silence, not the last character's
        (spikes(40, 0, 10), 1, [(0.0, (40 + 8.5) / 2)]),  # upstream: before the start
    ],
)
def test_where_characters_begin_and_end(
    weights: np.ndarray, characters: int, expected: list[tuple[float, float]]
) -> None:
    assert character_spans(weights, characters) == expected


@given(
    weights=st.lists(st.floats(0, 0.5, width=32), min_size=1, max_size=200),
    characters=st.integers(0, 30),
)
@settings(max_examples=100, deadline=None)
def test_spans_are_in_order(weights: list[float], characters: int) -> None:
    """Regardless of the weights, there is one for each character, within the audio."""
    spans = character_spans(np.array(weights, np.float32), characters)
    assert len(spans) == characters
    times = [time for span in spans for time in span]
    assert times == sorted(times)
    assert all(0 <= time <= len(weights) for time in times)
