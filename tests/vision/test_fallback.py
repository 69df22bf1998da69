"""INT8 that fails hands the very same crop to FP32, and FP32 stays."""

import logging

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kiosk.errors import EmbeddingError, ModelError, PictureError
from kiosk.types import Embedding, Stamp, Trust
from kiosk.vision.canary import golden_for
from kiosk.vision.embed import Embedder
from kiosk.vision.fallback import GuardedEmbedder
from kiosk.vision.session import Session

NS_PER_S = 1_000_000_000
TRUE = Embedding.of(np.arange(1.0, 9.0), "s")


class Clock:
    def __init__(self):
        self.s = 0.0

    def boottime_ns(self):
        return int(self.s * NS_PER_S)

    def now(self):
        return Stamp(1_780_000_000_000, self.boottime_ns(), "boot", Trust.SYNCED)


class Model:
    """Gives what it is told to, and notes the crops it was given."""

    space = "s"
    dim = 192

    def __init__(self, id_, answer=TRUE, threshold=0.5):
        self.id, self.answer, self.threshold = id_, answer, threshold
        self.crops = []

    def embed(self, crop):
        self.crops.append(crop)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Face:
    def __init__(self, name):
        self.name, self.crop, self.embedding = name, f"golden {name}", TRUE


def guard(main, spare, faces=(), period_s=600.0):
    clock = Clock()
    return clock, GuardedEmbedder(main, spare, faces=faces, clock=clock, period_s=period_s)


@pytest.mark.parametrize(
    "failure",
    [
        ModelError("model m-int8: onnxruntime cannot run it"),
        EmbeddingError("a model output of length nan cannot be normalised"),
        EmbeddingError("a model output of length 0 cannot be normalised"),
        ValueError("shapes"),
        MemoryError("2 GB"),
    ],
)
def test_the_same_crop_goes_to_fp32_which_stays(failure, caplog):
    """No face is lost in the switch; INT8 is not asked again; it is told once, as an error."""
    main, spare = Model("m-int8", failure), Model("m-fp32")
    _, eyes = guard(main, spare)
    assert eyes.id == "m-int8"
    assert eyes.embed("first") is TRUE
    assert eyes.embed("second") is TRUE
    assert main.crops == ["first"]
    assert spare.crops == ["first", "second"]
    assert eyes.id == "m-fp32"
    assert eyes.fallback.document() == {
        "from": "m-int8",
        "to": "m-fp32",
        "reason": str(failure),
        "spare": "no golden faces to hold it against",
        "at_ms": 1_780_000_000_000,
    }
    (record,) = caplog.records
    assert (record.message, record.levelno) == ("model.fallback", logging.ERROR)


def test_a_crop_that_is_none_is_no_failure_of_the_model():
    """A mistake of the caller's is passed on, and INT8 stays."""
    _, eyes = guard(Model("m-int8", PictureError("grey")), Model("m-fp32"))
    with pytest.raises(PictureError):
        eyes.embed("crop")
    assert eyes.fallback is None


def test_a_crop_that_neither_can_embed_is_no_reason_to_switch():
    """FP32 fails on it just the same: the crop is at fault, and INT8 stays."""
    failure = EmbeddingError("length 0")
    _, eyes = guard(Model("m-int8", failure), Model("m-fp32", failure))
    with pytest.raises(EmbeddingError):
        eyes.embed("black")
    assert eyes.fallback is None
    assert eyes.id == "m-int8"


def test_the_canary_sings_at_once_and_then_every_period():
    """One golden face before the first crop and after each period, each face in turn."""
    main = Model("m-int8")
    clock, eyes = guard(main, Model("m-fp32"), (Face("a"), Face("b")), period_s=600.0)
    for seconds in (0, 1, 599, 600, 601, 1200):
        clock.s = seconds
        eyes.embed(seconds)
    assert main.crops == ["golden a", 0, 1, 599, "golden b", 600, 601, "golden a", 1200]


def test_a_canary_that_fails_switches_before_the_crop_is_embedded(caplog):
    """A model that went bad answers no further face, however plausible its vectors."""
    main, spare = Model("m-int8"), Model("m-fp32")
    clock, eyes = guard(main, spare, (Face("a"),))
    eyes.embed("good")
    main.answer = Embedding.of(np.arange(8.0, 0.0, -1.0), "s")
    assert eyes.embed("not yet due") is main.answer
    clock.s = 600
    assert eyes.embed("due") is TRUE
    assert "due" not in main.crops
    assert spare.crops == ["golden a", "due"]
    assert "cosine of at least 0.98 to golden face a expected" in eyes.fallback.reason


OTHER = Embedding.of(np.arange(8.0, 0.0, -1.0), "s")


def test_a_failed_canary_says_that_fp32_passes(caplog):
    """FP32 agrees with the same golden faces: INT8 is what is broken."""
    _, eyes = guard(Model("m-int8", OTHER), Model("m-fp32"), (Face("a"), Face("b")))
    assert eyes.embed("crop") is TRUE
    assert eyes.fallback.spare == "agrees with its golden faces: cosine 1.0000"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_failed_canary_says_that_fp32_fails_as_well(caplog):
    """Golden faces that nothing agrees with are not taken for an INT8 that broke."""
    _, eyes = guard(Model("m-int8", OTHER), Model("m-fp32", OTHER), (Face("a"), Face("b")))
    assert eyes.embed("crop") is OTHER
    assert eyes.fallback.spare.startswith("fails as well: the golden faces or the runtime")
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


def test_a_failed_canary_switches_whatever_the_crop_is():
    """A crop that FP32 cannot embed either does not keep a model that went bad."""
    _, eyes = guard(Model("m-int8", OTHER), Model("m-fp32", EmbeddingError("dark")), (Face("a"),))
    with pytest.raises(EmbeddingError, match="dark"):
        eyes.embed("crop")
    assert eyes.id == "m-fp32"


def test_int8_on_its_own_is_watched_all_the_same(caplog):
    """Nothing to switch to: critical each period until it is well again, and the crops go on."""
    main = Model("m-int8", OTHER)
    clock, eyes = guard(main, None, (Face("a"), Face("b")))
    assert eyes.threshold == 0.5
    for seconds in (0, 1, 600):
        clock.s = seconds
        assert eyes.embed(seconds) is OTHER
    told = [(record.message, record.levelname) for record in caplog.records]
    assert told == [("model.canary_failed", "CRITICAL")] * 2
    assert "golden face b" in eyes.ailing
    assert eyes.fallback is None
    main.answer = TRUE
    eyes.embed("not due yet")
    assert eyes.ailing
    clock.s = 1200
    eyes.embed("due")
    assert not eyes.ailing


def test_int8_on_its_own_raises_what_it_meets():
    """The face is dropped by whoever asked."""
    _, eyes = guard(Model("m-int8", EmbeddingError("nan")), None)
    with pytest.raises(EmbeddingError):
        eyes.embed("crop")


def test_a_canary_that_gives_nothing_switches_too():
    """NaN for a golden face is a failed canary."""
    _, eyes = guard(Model("m-int8", EmbeddingError("nan")), Model("m-fp32"), (Face("a"),))
    assert eyes.embed("crop") is TRUE
    assert eyes.id == "m-fp32"


def test_the_stricter_threshold_holds_for_both():
    """Whichever file answers, nobody matches below what either was calibrated to."""
    _, eyes = guard(Model("m-int8", threshold=0.62), Model("m-fp32", threshold=0.6))
    assert eyes.threshold == 0.62


def overflowing(data):
    """The model with exp(1000 * mean) * 0 added: NaN for a crop that is bright, nothing else."""
    model = onnx.load_from_string(data)
    graph = model.graph
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
        node.input[:] = ["inner" if name == output else name for name in node.input]
    for name, value in (("gain", 1000.0), ("nought", 0.0)):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["image"], ["light"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["light", "gain"], ["strong"]),
            helper.make_node("Exp", ["strong"], ["huge"]),
            helper.make_node("Mul", ["huge", "nought"], ["nothing"]),
            helper.make_node("Add", ["inner", "nothing"], [output]),
        ]
    )
    return model.SerializeToString()


def test_a_real_graph_that_overflows(put_int8, pin, tiny):
    """INT8 that passes its golden faces and gives NaN for a bright crop: that crop is not lost."""
    path, _ = put_int8()
    golden = golden_for([pin(path.read_bytes())])
    entry = pin(overflowing(path.read_bytes()))
    main = Embedder(entry, Session(entry, 1))
    plain = pin(tiny().onnx_bytes(), id_="tiny-fp32")
    spare = Embedder(plain, Session(plain, 1))
    _, eyes = guard(main, spare, golden)
    dark = np.full((112, 112, 3), [40, 80, 60], np.uint8)
    bright = np.full((112, 112, 3), [250, 240, 200], np.uint8)
    assert eyes.embed(dark).similarity(spare.embed(dark)) > 0.98
    assert eyes.id == "tiny-int8"
    with pytest.raises(EmbeddingError, match="nan"):
        main.embed(bright)
    assert eyes.embed(bright).similarity(spare.embed(bright)) > 0.999999
    assert eyes.id == "tiny-fp32"
