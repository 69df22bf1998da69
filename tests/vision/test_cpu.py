"""What /proc/cpuinfo says, as far as it decides about INT8."""

import platform

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

from kiosk.vision.cpu import Cpu, read_cpu
from kiosk.vision.embed import Embedder
from kiosk.vision.session import Session

PI5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
PI4 = PI5.replace(" asimddp", "").replace("0xd0b", "0xd08").replace("Pi 5", "Pi 4")


def cpu_of(tmp_path, text):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    return read_cpu(file)


def test_a_pi_is_known_by_cores_board_and_dot_product(tmp_path):
    """A Pi 4 and a Pi 5 differ, and only the Pi 5 has the dot product."""
    five, four = cpu_of(tmp_path, PI5), cpu_of(tmp_path, PI4)
    assert five.name == "0x41 0xd0b 0x4 Raspberry Pi 5 Model B Rev 1.0"
    assert five.features == ("asimd", "asimddp", "asimdhp")
    assert "asimddp" not in four.features
    assert five != four


def test_a_machine_that_hides_its_cpu_has_a_name_all_the_same(tmp_path):
    """Without the file the architecture is what is known."""
    assert read_cpu(tmp_path / "none") == Cpu(platform.machine(), "unknown", ())


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", ("avx2",), True),
        ("x86_64", ("avx2", "avx512f"), True),
        ("x86_64", ("avx2", "avx512_vnni"), False),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("AMD64", ("avx2",), True),
        ("i386", ("avx2",), True),
        ("aarch64", ("asimd",), False),
    ],
)
def test_who_saturates(machine, features, expected):
    """x86 sums U8S8 products in 16 bits unless it has VNNI; ARM never does."""
    assert Cpu(machine, "x", features).saturates is expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [(("asimd",), False), (("asimddp",), True), (("avx2",), False), (("avx_vnni",), True)],
)
def test_who_has_the_dot_product(features, expected):
    """ARM's asimddp and x86's VNNI: sums of 8-bit products in one instruction."""
    assert Cpu("any", "x", features).has_dot_product is expected


def test_what_a_person_calls_it_decides_nothing(tmp_path):
    """A Pi is called by its board and core; a choice that was kept does not hold that name."""
    five = cpu_of(tmp_path, PI5)
    assert five.title == "Raspberry Pi 5 Model B Rev 1.0 Cortex-A76"
    assert set(five.document()) == {"machine", "name", "features"}


def saturating():
    """A QDQ convolution whose neighbouring products 255 * 127 overflow 16 bits when summed."""
    weights = numpy_helper.from_array(np.full((4, 4, 1, 1), 127, np.int8), "w")
    floats = [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in (("s", 1 / 255), ("ws", 1 / 127), ("ys", 4 / 255))
    ]
    zeros = [numpy_helper.from_array(np.uint8(0), "z"), numpy_helper.from_array(np.int8(0), "wz")]
    nodes = [
        helper.make_node("Abs", ["image"], ["positive"]),
        helper.make_node("Conv", ["positive", "spread"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "ys", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "z"], ["embedding"]),
    ]
    spread = numpy_helper.from_array(np.full((4, 3, 1, 1), 1 / 3, np.float32), "spread")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 4, 112, 112])],
        [weights, *floats, *zeros, spread],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def test_no_session_saturates(pin, tiny):
    """Everywhere four products of ones sum to 4; on x86 without VNNI only with the setting."""
    session = Session(pin(saturating(), dim=112), 1)
    (output,) = session.run(np.ones((1, 3, 112, 112), np.float32))
    assert output.min() == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("format_", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activation", [QuantType.QInt8, QuantType.QUInt8])
def test_every_int8_form_loads_and_runs(put_int8, crop, format_, activation):
    """QDQ and QOperator, S8S8 and U8S8: whatever the processor, none is lost to the setting."""
    _, entry = put_int8(format_=format_, activation=activation, convolution=True)
    assert Embedder(entry, Session(entry, 1)).embed(crop).vector.shape == (192,)
