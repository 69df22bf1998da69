"""The shipped embedders on aarch64 without and with dot product, under user-mode emulation."""

import numpy as np
import pytest

from arm.emulator import embeddings
from arm.root import BOARDS, UnavailableError, ready
from bench.machine import int8_excuse
from kiosk.lab.runner import embeddings as embeddings_here
from kiosk.vision.embed import preprocess
from kiosk.vision.manifest import load_manifest, shipped_models_dir
from kiosk.vision.picture import load_picture
from kiosk.vision.session import runtime_session, verified_bytes

pytestmark = pytest.mark.emulated

HERE = [e.id for e in load_manifest().entries if e.kind == "embedder" and e.path.is_file()]
EXACT = [name for name in HERE if "fp32" in name]
EIGHT_BITS = [name for name in HERE if "int8" in name]
YARDSTICK = "mobilefacenet-fp32"
LEAST_OF_THE_GATE = 0.98


@pytest.fixture(scope="session")
def boards():
    """Both boards can be emulated here; skipped in words where they cannot."""
    try:
        ready()
    except UnavailableError as error:
        pytest.skip(f"no emulated Pi: {error}")
    return tuple(BOARDS)


@pytest.fixture(scope="session")
def on(boards):
    """Golden faces through a model, each worked out once.

    On a board, or on this machine as the daemon runs it ("x86").
    """
    known = {}
    folder = shipped_models_dir() / "golden"
    crops = [load_picture(path) for path in sorted(folder.glob("*.png"))]

    def run(model_id, where):
        if (model_id, where) not in known:
            entry = load_manifest().get(model_id, "embedder")
            inputs = [preprocess(crop, entry.input)[None] for crop in crops]
            if where in BOARDS:
                known[model_id, where] = embeddings(entry.path, inputs, where)
            else:
                session = runtime_session(verified_bytes(entry), 1)
                known[model_id, where] = embeddings_here(session, inputs)
        return known[model_id, where]

    return run


def least_cosine(one, other):
    return float(np.sum(one.astype(np.float64) * other, axis=1).min())


@pytest.mark.parametrize("cpu", BOARDS)
@pytest.mark.parametrize("model_id", EXACT)
def test_fp32_is_the_same_on_a_board(model_id, cpu, on):
    """FP32 files load on both boards and agree with x86 to five nines."""
    assert least_cosine(on(model_id, cpu), on(model_id, "x86")) >= 0.99999


@pytest.mark.parametrize("model_id", EIGHT_BITS)
def test_both_boards_give_the_same_in_int8(model_id, on):
    """The dot product changes the time of an INT8 file, not its answer."""
    assert least_cosine(*(on(model_id, cpu) for cpu in BOARDS)) >= 0.99999


@pytest.mark.parametrize("cpu", BOARDS)
@pytest.mark.parametrize("model_id", EIGHT_BITS)
def test_int8_stays_near_fp32_on_a_board(model_id, cpu, on):
    """No golden face falls below the gate's least cosine in aarch64 arithmetic."""
    assert least_cosine(on(model_id, cpu), on(YARDSTICK, "x86")) > LEAST_OF_THE_GATE


@pytest.mark.parametrize("cpu", BOARDS)
@pytest.mark.parametrize("model_id", EIGHT_BITS)
def test_int8_is_the_same_on_x86_with_vnni(model_id, cpu, on):
    """Where x86 sums 8-bit products as ARM does, an INT8 file gives the same to three nines."""
    cosine = least_cosine(on(model_id, cpu), on(model_id, "x86"))
    if int8_excuse():
        pytest.skip(f"told only ({int8_excuse()}): cosine of {model_id} to {cpu} {cosine:.6f}")
    assert cosine >= 0.999
