"""A bench without ncnn is a shorter table, not a failure."""

from contextlib import ExitStack

import numpy as np
import pytest
from onnx import TensorProto, helper

from bench import ncnn_peer


@pytest.fixture
def model():
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
    relu = helper.make_node("Relu", ["x"], ["y"])
    return helper.make_model(helper.make_graph([relu], "g", ends[:1], ends[1:]))


@pytest.fixture
def peers(model, tmp_path):
    def opened():
        with ExitStack() as stack:
            picture = np.zeros((1, 3, 4, 4), np.float32)
            return ncnn_peer.opened(stack, {"ncnn": model}, picture, tmp_path)

    return opened


def test_a_failed_installation_is_told(peers, monkeypatch, capsys):
    """pip's last line is the reason."""

    def refused(cache):
        raise ncnn_peer.UnavailableError("no matching distribution")

    monkeypatch.setattr(ncnn_peer, "environment", refused)
    assert peers() == {}
    assert "ncnn: not measured: no matching distribution" in capsys.readouterr().out


def test_an_environment_that_cannot_run_is_told(peers, monkeypatch, capsys, tmp_path):
    """An interpreter that ends at once, or is not there, leaves ncnn out."""
    for python in ("/bin/false", str(tmp_path / "gone")):
        monkeypatch.setattr(ncnn_peer, "environment", lambda cache, python=python: python)
        assert peers() == {}
        assert "ncnn: not measured" in capsys.readouterr().out
