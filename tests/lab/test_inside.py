"""A graph that normalises its pixels itself is fed them as they are, and that is said."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kiosk.__main__ import main
from kiosk.lab.inside import inside
from kiosk.lab.prepare import base_of, ready
from kiosk.lab.subject import ARCFACE_SCALE, Feeding, read_subject
from lab.nets import mobile, write_crops

MEANS = [123.675, 116.28, 103.53]
DEVIATIONS = [58.395, 57.12, 57.375]


def before(model, *steps, constant_nodes=False):
    """The model with `(operator, values)` steps between its input and what reads it."""
    graph, name = model.graph, "image"
    nodes = []
    for number, (kind, *values) in enumerate(steps):
        names = [f"in{number}_{place}" for place in range(len(values))]
        for each, value in zip(names, values, strict=True):
            tensor = numpy_helper.from_array(np.asarray(value, np.float32), each)
            if constant_nodes:
                nodes.append(helper.make_node("Constant", [], [each], value=tensor))
            else:
                graph.initializer.append(tensor)
        nodes.append(helper.make_node(kind, [name, *names], [f"in{number}"]))
        name = f"in{number}"
    for node in graph.node:
        node.input[:] = [name if each == "image" else each for each in node.input]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return model


def planes(values):
    return np.reshape(values, (1, 3, 1, 1))


RAW = {
    "insightface": (("Sub", 127.5), ("Mul", 0.0078125)),
    "keras": (("Div", [[[[255.0]]]]),),
    "division": (("Sub", 127.5), ("Div", 127.5)),
    "signs": (("Add", -127.5), ("Mul", 1 / 127.5)),
    "times first": (("Mul", 1 / 127.5), ("Sub", 1.0)),
    "colours": (("Sub", planes(MEANS)), ("Div", planes(DEVIATIONS))),
    "unit, then colours": (
        ("Mul", 1 / 255),
        ("Sub", planes([0.5] * 3)),
        ("Div", planes([0.5] * 3)),
    ),
    "mean only": (("Sub", 127.5),),
    "norm": (("BatchNormalization", [1.0] * 3, [0.0] * 3, MEANS, np.square(DEVIATIONS)),),
}


@pytest.mark.parametrize("steps", RAW.values(), ids=RAW)
@pytest.mark.parametrize("constant_nodes", [False, True])
def test_a_graph_that_normalises_is_fed_pixels(tmp_path, capsys, steps, constant_nodes):
    """Constants before the first weights that bring 0..255 around 0 are a normalisation."""
    model = before(mobile(0), *steps, constant_nodes=constant_nodes)
    onnx.save(model, tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx", Feeding("BGR"))
    assert (subject.input.mean, subject.input.scale) == (0.0, 1.0)
    assert subject.input.channels == "BGR"
    assert "it normalises pixels itself" in capsys.readouterr().err


def test_such_a_graph_gives_what_its_plain_one_gives(tmp_path):
    """The very embedding of the file without the two operators, fed by us."""
    from kiosk.lab.faces import read_folder
    from kiosk.lab.runner import embeddings_of

    faces = read_folder(write_crops(tmp_path / "c", people=1, each=2), aligned=True).faces
    onnx.save(mobile(0), tmp_path / "plain.onnx")
    onnx.save(before(mobile(0), *RAW["division"]), tmp_path / "inside.onnx")
    plain, self_made = (
        embeddings_of(read_subject(tmp_path / f"{name}.onnx"), faces)
        for name in ("plain", "inside")
    )
    assert np.abs(plain - self_made).max() < 1e-5


def test_what_is_said_by_the_caller_counts(tmp_path, capsys):
    """--mean and --scale override what the graph shows, without a word."""
    onnx.save(before(mobile(0), *RAW["division"]), tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx", Feeding("RGB", 127.5, ARCFACE_SCALE))
    assert (subject.input.mean, subject.input.scale) == (127.5, ARCFACE_SCALE)
    assert capsys.readouterr().err == ""


NORMALISED = {
    "none": (),
    "norm of normalised": (
        ("BatchNormalization", [1.1] * 3, [0.1] * 3, [-0.1, 0.02, 0.1], [0.3, 0.3, 0.28]),
    ),
}


@pytest.mark.parametrize("steps", NORMALISED.values(), ids=NORMALISED)
def test_a_graph_that_wants_normalised_values_gets_them(tmp_path, capsys, steps):
    """Statistics around 0 are those of values that were normalised before."""
    onnx.save(before(mobile(0), *steps), tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx")
    assert (subject.input.mean, subject.input.scale) == (127.5, ARCFACE_SCALE)
    assert capsys.readouterr().err == ""


UNTOLD = {
    "of 0 to 1": (("Sub", planes([0.485, 0.456, 0.406])), ("Div", planes([0.229, 0.224, 0.225]))),
    "odd": (("Mul", 1e-4),),
    "of each pixel": (("Sub", np.zeros((1, 3, 112, 112))),),
    "to nothing": (("Mul", 0.0),),
}


@pytest.mark.parametrize("steps", UNTOLD.values(), ids=UNTOLD)
def test_what_cannot_be_told_is_a_warning(tmp_path, capsys, steps):
    """ArcFace's feeding is taken, and the first operators are named."""
    onnx.save(before(mobile(0), *steps), tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx")
    assert (subject.input.mean, subject.input.scale) == (127.5, ARCFACE_SCALE)
    said = capsys.readouterr().err
    assert "warning: it may normalise by itself" in said
    assert steps[0][0] in said
    assert "name --mean and --scale" in said


def test_behind_an_8_bit_input_it_is_seen_too(tmp_path):
    """Quantised files begin with a Q and a DQ, and keep constants in 8 bits."""
    model = before(mobile(0), ("Sub", 127.5), ("Mul", 1 / 127.5))
    kept = [t for t in model.graph.initializer if t.name != "in0_0"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [
            *kept,
            numpy_helper.from_array(np.array(127, np.uint8), "eight"),
            numpy_helper.from_array(np.array(127.5 / 127, np.float32), "step"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
            numpy_helper.from_array(np.array(1.0, np.float32), "one"),
        ]
    )
    first = [
        helper.make_node("DequantizeLinear", ["eight", "step", "zero"], ["in0_0"]),
        helper.make_node("QuantizeLinear", ["image", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["dq"]),
    ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*first, *rest])
    for node in model.graph.node:
        if node.op_type == "Sub":
            node.input[0] = "dq"
    found = inside(model, "image")
    assert (found.words, found.raw) == ("Sub 127.5 and Mul 0.00784314", True)


def test_the_workshop_takes_such_a_graph(tmp_path):
    """It is folded like any other, within 1e-5 of itself."""
    onnx.save(before(mobile(0), *RAW["division"]), tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx")
    assert ready(subject).graph.node
    assert base_of(subject).graph.node


def test_a_shared_input_is_no_chain(tmp_path):
    """What two nodes read was not made for the one that follows."""
    model = before(mobile(0), *RAW["division"])
    model.graph.node.append(helper.make_node("Neg", ["image"], ["other"]))
    assert inside(model, "image") is None


def test_models_add_takes_it_and_says_so(tmp_path, capsys):
    """The entry has the feeding, the remark is told, and options override both."""
    onnx.save(before(mobile(0), *RAW["division"]), tmp_path / "model.onnx")
    add = ["models", "add", str(tmp_path / "model.onnx"), "--id", "own-fp32", "--state-dir"]
    assert main([*add, str(tmp_path / "one")]) == 0
    told = capsys.readouterr()
    assert "(pixel - 0) * 1" in told.out
    assert "it normalises pixels itself (Sub 127.5 and Div 127.5)" in told.err
    fed = ("--mean", "127.5", "--scale", "0.0078125")
    assert main([*add, str(tmp_path / "two"), *fed, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["input"]["mean"], said["input"]["scale"]) == (127.5, 0.0078125)
    assert said["remark"] is None
