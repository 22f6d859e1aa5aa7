"""`python -m tools.profile`: operations and evaluations are counted correctly, and nothing stays patched."""

import json
from pathlib import Path
from typing import Any

import pytest

from funasr_cli.compute.backend import mx, nn, on_accelerator
from tools import profile
from tools.counting import counting, operations_of, timing_modules

LINEAR = "Linear" if on_accelerator() else "layers.CPULinear"


def test_operations_of_a_graph() -> None:
    x = mx.ones((3, 3))
    mx.eval(x)
    assert operations_of((x,)) == {}
    assert operations_of(((x @ x).T, {"a": [mx.exp(x)]}, "text", None)) == {"Matmul": 1, "Transpose": 1, "Exp": 1}


def test_evaluations_of_all_kinds() -> None:
    x = mx.ones((2,))
    mx.eval(x)
    with counting() as work:
        y = mx.exp(x)
        assert work.evaluations == 0
        mx.eval(y)
        mx.async_eval(y + x)
        mx.eval(x, y)  # nothing is left to compute
        assert work.evaluations == 2
        assert mx.sin(x).tolist()
        assert mx.sum(y).item()
        assert work.evaluations == 4
        assert y.tolist(), "this evaluates it"
    assert work.evaluations == 4
    assert work.operations["Exp"] == work.operations["Add"] == work.operations["Sin"] == 1
    assert work.computing == work.operations.total() - work.operations["Squeeze"]
    before = work.operations.total()
    mx.eval(mx.exp(x))
    assert work.operations.total() == before, "counting must have ended"


def test_counting_ends_with_an_error() -> None:
    evaluate, to_list = mx.eval, mx.array.tolist
    with pytest.raises(ValueError, match="cannot be broadcast"), counting():
        mx.eval(mx.zeros(2) + mx.zeros(3))
    assert mx.eval is evaluate
    assert mx.array.tolist is to_list


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.layers:
            x = layer(x)
        return x


def test_time_in_modules() -> None:
    model, call = Twice(), Twice.__call__
    x = mx.ones((1, 4))
    expected = model(x)
    with timing_modules(model) as seconds:
        result = model(x)
    assert seconds.keys() == {"Linear", "Twice"}
    assert all(taken_s > 0 for taken_s in seconds.values())
    assert mx.array_equal(result, expected)
    assert Twice.__call__ is call


def profiled(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    """Return the cases of `python -m tools.profile --json`."""
    assert profile.main([*map(str, words), "--trials", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_profile_counts_the_same_every_time(
    small_model: Path, short_wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", small_model, short_wav, "--batch-sizes", 1, 2, "--steps", 5)
    one, two = profiled(capsys, *words)
    assert [case["case"] for case in (one, two)] == [f"Small-Nano, short.wav, batch of {n}" for n in (1, 2)]
    for case in (one, two):
        step = case["stages"][-1]
        assert [stage["stage"] for stage in case["stages"]] == ["features", "encoder", "prefill", "decode"]
        assert case["steps"] == 5
        for count in ("operations", "computing", "evaluations"):
            assert case[f"{count}_per_token"] == step[count] / case["batch_size"]
        for stage in case["stages"]:
            assert 0 < stage["computing"] < stage["operations"] == sum(stage["kinds"].values())
            assert stage["evaluations"] >= 1
    assert {LINEAR, "RMSNorm", "qwen3.Attention", "outside of modules"} <= one["stages"][3]["modules"].keys()
    assert not {"sanm.SANMLayer", "adaptor.Attention"} & one["stages"][3]["modules"].keys()
    assert "sanm.FSMNBlock" in one["stages"][1]["modules"]
    counts = [(stage["operations"], stage["kinds"]) for stage in one["stages"]]
    [again] = profiled(capsys, "-m", small_model, short_wav, "--steps", 5)
    assert [(stage["operations"], stage["kinds"]) for stage in again["stages"]] == counts


@pytest.mark.slow
def test_a_step_of_decoding_is_evaluated_once(capsys: pytest.CaptureFixture[str]) -> None:
    """This includes a CPU, where NumPy does part of the work."""
    [case] = profiled(capsys, "-m", "demo")
    assert case["evaluations_per_token"] == 1
    assert case["operations_per_token"] > 100


@pytest.mark.slow
def test_tables_of_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["--synthetic", "demo", "--trials", "1", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(", batch of 1 | seconds | operations | computing | evaluations |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| features", "| encoder", "| prefill", "| decode, one step",
    ]  # fmt: skip
    assert any(line.endswith("| features % | encoder % | prefill % | decode % |") for line in lines)


def test_a_profile_of_a_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["-m", "nowhere"]) == 3
    assert capsys.readouterr().err.startswith("error[model-missing]: nowhere: no such model")
