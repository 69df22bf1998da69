"""The parts of the bench that can be wrong without anybody seeing it in a figure."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.memory import SAMPLES
from bench.ncnn_file import write
from bench.table import Row, lines
from bench.timing import best_of


def model_of(nodes, constants):
    ends = [("x", [1, 2, 6, 5]), ("y", None)]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends
    )
    tensors = [numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors))


@pytest.fixture
def residual():
    """A padded convolution, its PReLU, and the sum of both."""
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[0, 1, 2, 3], strides=[2, 1]
        ),
        helper.make_node("PRelu", ["c", "s"], ["p"]),
        helper.make_node("Add", ["c", "p"], ["y"]),
    ]
    constants = {"w": np.ones((4, 2, 3, 3)), "b": np.zeros(4), "s": np.full((4, 1, 1), 0.5)}
    return model_of(nodes, constants)


def test_the_daemons_memory_can_be_measured():
    """A whole daemon on a few frames: what stands in for its camera obeys the camera's rules."""
    here = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", str(2 * SAMPLES)],
        env={**os.environ, "PYTHONPATH": str(here)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MiB at the end" in done.stdout


def test_ncnn_text_says_what_the_graph_says(residual, tmp_path):
    """Layers and tensors are counted, padding keeps its sides, and a tensor read twice is split."""
    write(residual, tmp_path, "m")
    magic, counts, *layers = (tmp_path / "m.param").read_text().splitlines()
    assert (magic, counts) == ("7767517", "5 6")
    assert layers == [
        "Input x 0 1 x 0=5 1=6 2=2",
        "Convolution c 1 1 x c 0=4 1=3 11=3 3=1 13=2 4=1 15=3 14=0 16=2 5=1 6=72",
        "Split c_split 1 2 c c_copy0 c_copy1",
        "PReLU p 1 1 c_copy0 p 0=4",
        "BinaryOp y 2 1 c_copy1 p y 0=0",
    ]


def test_ncnn_weights_stand_in_the_order_of_the_layers(residual, tmp_path):
    """A tag of four bytes before a convolution's weights, then bias and slopes without one."""
    write(residual, tmp_path, "m")
    values = np.frombuffer((tmp_path / "m.bin").read_bytes(), "<f4")
    assert values.tolist() == [0.0] + [1.0] * 72 + [0.0] * 4 + [0.5] * 4


def test_an_operator_without_counterpart_is_refused(tmp_path):
    """What cannot be written for ncnn is named: no other network is timed in its place."""
    with pytest.raises(ValueError, match="Sigmoid"):
        write(model_of([onnx.helper.make_node("Sigmoid", ["x"], ["y"])], {}), tmp_path, "m")


@pytest.mark.parametrize(
    ("value", "more", "excuse", "verdict"),
    [
        (0.50, False, "", "missed"),
        (0.47, False, "", "reached"),
        (0.40, False, "", "reached, the aim too"),
        (0.40, True, "", "missed"),
        (0.48, True, "", "reached, the aim too"),
        (0.40, False, "CPU without VNNI", "told only: CPU without VNNI"),
    ],
)
def test_a_verdict_needs_the_floor(value, more, excuse, verdict):
    """At the floor is reached; an excuse is never a pass."""
    aim = 0.48 if more else 0.42
    assert Row("r", value, 0.47, aim, more_is_better=more, excuse=excuse).verdict == verdict


def test_the_table_has_a_line_for_each_row():
    """A figure without a number to reach is told, with empty cells."""
    head, rule, row = lines([Row("size", 0.252)])
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["size", "0.252", "", "", "told"]
    assert len(head) == len(rule) == len(row)


def test_contenders_take_turns():
    """The shortest of each counts, and none runs twice as often as another."""
    order = []

    def contender(name, times):
        return lambda: order.append(name) or next(times)

    runs = {n: contender(n, iter([3.0, 1.0, 2.0] * 2)) for n in ("one", "other")}
    assert best_of(runs, 2) == {"one": 1.0, "other": 1.0}
    assert order == (["one"] * 3 + ["other"] * 3) * 2
