"""Operations and evaluations are counted as they are, and what was watched is left as it was."""

import pytest

from funasr_cli.backend import mx, nn
from funasr_cli.benchmarks.counting import counting, operations_of, timing_modules


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
        mx.eval(x, y)  # there is nothing left to do
        assert work.evaluations == 2
        assert mx.sin(x).tolist()
        assert mx.sum(y).item()
        assert work.evaluations == 4
        assert y.tolist(), "it has been evaluated"
    assert work.evaluations == 4
    assert work.operations["Exp"] == work.operations["Add"] == work.operations["Sin"] == 1
    assert work.computing == work.operations.total() - work.operations["Squeeze"]
    before = work.operations.total()
    mx.eval(mx.exp(x))
    assert work.operations.total() == before, "counting has ended"


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
