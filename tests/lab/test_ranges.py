"""Calibrated ranges: where a few hundred values speak for a tensor, its range is made wider."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kiosk.lab.calibrate import read_ranges, widen, without_place, write_ranges
from lab.nets import mobile, noise


def test_ranges_are_widened_at_both_ends(tmp_path):
    """Only the tensors named, by the factor given; what the quantiser reads is still a range."""
    model = mobile(0)
    path = tmp_path / "ranges.json"
    options = {"method": "MinMax", "percentile": 100.0, "op_types": ("Conv",)}
    write_ranges(model, noise(model, 3), path, **options)
    before = dict(read_ranges(path).items())
    widened = next(iter(before))
    widen(path, [widened, "no such tensor"], 2.0)
    after = dict(read_ranges(path).items())
    for name, data in before.items():
        factor = 2.0 if name == widened else 1.0
        low, high = data.range_value
        assert after[name].range_value[0] == pytest.approx(np.asarray(low) * factor)
        assert after[name].range_value[1] == pytest.approx(np.asarray(high) * factor)


def test_tensors_without_rows_and_columns_are_found():
    """Behind a convolution as large as its input a face has one value of each channel."""
    rng = np.random.default_rng(0)
    wide = numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "wide")
    whole = numpy_helper.from_array(rng.normal(size=(4, 1, 7, 7)).astype(np.float32), "whole")
    nodes = [
        helper.make_node("Conv", ["image", "wide"], ["x"]),
        helper.make_node("Conv", ["x", "whole"], ["y"], group=4),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, 9, 9]), ("y", [1, 4, 1, 1]))
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], [wide, whole])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    values = np.zeros((1, 3, 9, 9), dtype=np.float32)
    assert without_place(model, values, ["x", "y"]) == ("y",)
    assert without_place(model, values, []) == ()
