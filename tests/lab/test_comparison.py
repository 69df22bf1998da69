"""Two models side by side: whether they go together, what is left out, F2 tokens."""

import numpy as np
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from kiosk.errors import UserError
from kiosk.lab import comparison
from kiosk.lab.comparison import arithmetic_remark, embed, read_models, through_tokens
from kiosk.lab.faces import pictures_of
from kiosk.lab.machine import describe
from kiosk.lab.subject import Feeding
from kiosk.vision.cpu import cpu_of
from kiosk.vision.manifest import load_manifest


def test_other_dimensions_are_refused_by_name(tiny_embedder):
    """Both files and both dimensions are named."""
    first, second = tiny_embedder("a.onnx", dim=64), tiny_embedder("b.onnx", dim=128)
    with pytest.raises(UserError, match=r"a\.onnx gives 64 values and .*b\.onnx 128"):
        read_models(first, second, None)


def test_other_feeding_is_refused_by_name(tiny_embedder):
    """A model fed otherwise than the manifest's second file says is refused, with the options."""
    known = load_manifest().get("mobilefacenet-fp32", "embedder").path
    other = tiny_embedder("other.onnx", dim=192)
    with pytest.raises(
        UserError, match=r"other\.onnx takes BGR .* and .*fp32\.onnx RGB .*--channels"
    ):
        read_models(other, known, Feeding("BGR"))


def test_an_unknown_int8_is_fed_as_its_original(tiny_embedder):
    """What the command line says of the first model holds for the second."""
    first, second = read_models(
        tiny_embedder("a.onnx"), tiny_embedder("b.onnx"), Feeding("BGR", 0.0, 1.0)
    )
    assert first.input == second.input
    assert second.input.channels == "BGR"


def quantised(path):
    written = path.with_name("dynamic-int8.onnx")
    quantize_dynamic(path, written, weight_type=QuantType.QInt8)
    return written


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_models_in_the_wrong_order_are_refused(tiny_embedder):
    """A quantised model first and a plain one second are named, and told to be swapped."""
    plain = tiny_embedder()
    written = quantised(plain)
    with pytest.raises(UserError, match=r"dynamic-int8\.onnx is quantised and .*swap them"):
        read_models(written, plain, None)
    assert [s.is_quantised for s in read_models(plain, written, None)] == [False, True]
    assert len(read_models(written, written, None)) == 2


def test_the_remark_is_about_quantised_models_alone(tiny_embedder, monkeypatch):
    """An FP32 model needs no word about 8-bit arithmetic, whatever the machine."""
    old = describe(cpu_of("model name : old\nflags : avx2", "x86_64"))
    monkeypatch.setattr(comparison, "describe", lambda: old)
    plain = tiny_embedder()
    both = read_models(plain, quantised(plain), None)
    assert arithmetic_remark(both[:1], "native") == ""
    assert "--arithmetic reference" in arithmetic_remark(both, "native")
    assert "do not reach" in arithmetic_remark(both, "reference").replace("does", "do")


def test_pictures_without_a_face_are_left_out_by_name(tiny_embedder, crops):
    """A broken file and one of another size are named; the rows are those of the others."""
    folder = crops(people=2, each=20)
    (folder / "p00" / "3.png").write_bytes(b"torn")
    subjects = read_models(tiny_embedder(), None, None)
    found = embed([*pictures_of(folder), folder / "absent.png"], subjects, aligned=True)
    assert len(found.paths) == len(found.matrices[0]) == 39
    assert [item.path.name for item in found.skipped] == ["3.png", "absent.png"]
    assert np.linalg.norm(found.matrices[0], axis=1) == pytest.approx(1.0)


def test_no_face_at_all_is_refused(tiny_embedder, tmp_path):
    """When nothing is left the first reason is told."""
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"none in 1 pictures, the first: .*a\.png"):
        embed([tmp_path / "a.png"], read_models(tiny_embedder(), None, None), aligned=True)


def test_rows_come_back_from_tokens_as_units():
    """A token moves a vector by at most half a step in each value, and little in cosine."""
    rows = np.random.default_rng(0).normal(size=(20, 192))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    sent = through_tokens(rows)
    assert np.linalg.norm(sent, axis=1) == pytest.approx(1.0)
    assert ((rows * sent).sum(axis=1) > 0.9995).all()
    assert not np.array_equal(rows, sent)


def test_a_dimension_that_no_token_holds_is_refused():
    """Below 64 values there are no F2 tokens: said, with the way out."""
    with pytest.raises(UserError, match=r"64 to 1024 values .*gives 32; leave --f2 out"):
        through_tokens(np.eye(32, dtype=np.float32))
