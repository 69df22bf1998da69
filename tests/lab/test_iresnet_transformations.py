"""What the workshop does to a graph leaves an IResNet's embeddings as they are."""

import numpy as np
import pytest

from bench.iresnet import iresnet
from kiosk.lab.equalise import factors_of, streams, with_factors
from kiosk.lab.fold import folded, with_pointwise_norms
from kiosk.lab.graph import Net
from kiosk.lab.prelu import as_blocked, as_four, as_max, with_slopes_below_one
from kiosk.lab.runner import embeddings, session_of

TAKEN = ("scale", "zero_point", "quantized")


@pytest.fixture(scope="module")
def network():
    """A small one with every kind of layer: a stage of one block and a stage of two."""
    return iresnet((1, 2), width=8, dim=64, seed=5)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [draw.uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32) for _ in range(3)]


def kinds(model):
    return {node.op_type for node in model.graph.node}


def equalised_on(model, pictures):
    """Equalised by the ranges that the model itself has on the pictures."""
    names = [name for stream in streams(Net(model)) for name in stream.tensors]
    opened = type(model).FromString(model.SerializeToString())
    opened.graph.output.extend(type(model.graph.output[0])(name=name) for name in names)
    session = session_of(opened, arithmetic="reference")
    runs = [session.run(names, {"image": picture}) for picture in pictures]
    ranges = {
        name: np.max([np.abs(run[i]).max(axis=(0, 2, 3)) for run in runs], axis=0)
        for i, name in enumerate(names)
    }
    return with_factors(model, factors_of(model, ranges))


def lean(model):
    return with_slopes_below_one(with_pointwise_norms(folded(model)))


@pytest.mark.parametrize(
    "change",
    [
        folded,
        with_pointwise_norms,
        lambda model: as_four(folded(model)),
        lambda model: as_blocked(folded(model)),
        lambda model: as_max(lean(model)),
    ],
    ids=["folded", "pointwise norms", "four", "blocked", "max"],
)
def test_embeddings_stay_as_they_are(network, pictures, change):
    """Each transformation is exact to 1e-5 on a network with residual branches."""
    before = embeddings(session_of(network), pictures)
    after = embeddings(session_of(change(network)), pictures)
    assert np.abs(after - before).max() < 1e-5


def test_equalisation_reaches_every_residual_stream(network, pictures):
    """Streams joined by sums, and those a batch normalisation reads, keep the embeddings."""
    plain = folded(network)
    found = streams(Net(plain))
    assert any(len(stream.writers) > 1 for stream in found)
    after = equalised_on(plain, pictures)
    before = embeddings(session_of(network), pictures)
    assert np.abs(embeddings(session_of(after), pictures) - before).max() < 1e-5
    assert any(
        np.abs(Net(after).value(n) - Net(plain).value(n)).max() > 0.01 for n in weights(after)
    )


def weights(model):
    return [tensor.name for tensor in model.graph.initializer if tensor.name.endswith("_weight")]


def test_only_normalisations_before_padding_remain(network):
    """One for each block stays after folding; as 1x1 depthwise convolutions none is left."""
    left = [n for n in folded(network).graph.node if n.op_type == "BatchNormalization"]
    assert len(left) == 3
    assert "BatchNormalization" not in kinds(with_pointwise_norms(folded(network)))


def test_no_constant_takes_a_name_of_the_quantisers(network):
    """ONNX Runtime calls the scale of a tensor y y_scale: a constant of that name would be read."""
    graph = as_max(lean(network)).graph
    taken = {f"{name}_{part}" for n in graph.node for name in n.output for part in TAKEN}
    assert not taken & {tensor.name for tensor in graph.initializer}
