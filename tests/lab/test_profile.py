"""Profiles: figures from a clock in hand, turns in order, and what a child process tells."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from kiosk.__main__ import main
from kiosk.clock import SystemClock
from kiosk.commands.lab.profile import entries_of, names_of, threads_of
from kiosk.errors import ModelError, UserError
from kiosk.lab import profile as module
from kiosk.lab.coldstart import peak_bytes
from kiosk.lab.profile import operators_of, profile
from kiosk.lab.timing import Cold, warm_of

FACE = np.zeros((1, 3, 112, 112), dtype=np.float32)
BALLAST = 400 * 1024 * 1024


class HandClock(SystemClock):
    """A clock that only moves when a session is run."""

    def __init__(self):
        super().__init__()
        self.at_ns = 0

    def boottime_ns(self):
        return self.at_ns


class TimedSession:
    """A session that takes the milliseconds it is given, one after the other, and says its name."""

    def __init__(self, name, costs_ms, clock, ran):
        self.name, self._costs, self._clock, self._ran = name, iter(costs_ms), clock, ran

    def get_inputs(self):
        return [self]

    def run(self, _, feed):
        self._ran.append((self.name, float(feed[self.name].flat[0])))
        self._clock.at_ns += int(next(self._costs) * 1e6)


@pytest.fixture
def timed(monkeypatch):
    """A function that profiles names with given milliseconds per run, warm-up included."""

    def run(costs, *, rounds, against=None, inputs=(FACE,), threads=(1,)):
        clock, ran = HandClock(), []
        sessions = {
            name.encode(): [TimedSession(name, each, clock, ran) for each in runs]
            for name, runs in costs.items()
        }
        monkeypatch.setattr(module, "daemon_session", lambda data, *_: sessions[data].pop(0))
        cold = Cold(1.0, 1.0, 1, 2)
        monkeypatch.setattr(module._Bench, "cold", lambda *_: cold)
        monkeypatch.setattr(module._Bench, "operators", lambda *_: ())
        models = {name: name.encode() for name in costs}
        found = profile(
            models, list(inputs), threads=threads, rounds=rounds, against=against, clock=clock
        )
        return found, ran

    return run


def test_figures_of_a_series():
    """Mean, median, 95th percentile (between the neighbours), least, and how many."""
    warm = warm_of([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (warm.mean_ms, warm.median_ms, warm.min_ms, warm.runs) == (4.0, 3.0, 1.0, 5)
    assert warm.p95_ms == pytest.approx(8.8)


def test_models_take_turns(timed):
    """A B A B, warm-up too; each turn has its own face, and both models the same one."""
    inputs = [FACE, FACE + 1]
    _, ran = timed({"a": [[1] * 7], "b": [[2] * 7]}, rounds=4, inputs=inputs)
    assert [name for name, _ in ran] == ["a", "b"] * 7
    assert [value for _, value in ran] == [0, 0, 1, 1] * 3 + [0, 0]


def test_the_warm_up_is_not_counted(timed):
    """Three first runs of any length change nothing."""
    found, _ = timed({"a": [[500, 500, 500, 1, 2, 3, 10]]}, rounds=4)
    warm = found.timing("a", 1).warm
    assert (warm.mean_ms, warm.median_ms, warm.min_ms, warm.runs) == (4.0, 2.5, 1.0, 4)
    assert warm.p95_ms == pytest.approx(8.95)


def test_ratios_are_of_best_times_and_of_rounds(timed):
    """`ratio` is best over best; `ratio_median` is the median over rounds of one over the other."""
    costs = {"fp32": [[0, 0, 0, 10, 20, 40]], "int8": [[0, 0, 0, 5, 16, 16]]}
    found, _ = timed(costs, rounds=3, against="fp32")
    assert found.against == "fp32"
    assert found.timing("int8", 1).ratio == 0.5
    assert found.timing("int8", 1).ratio_median == 0.5
    assert found.timing("fp32", 1).ratio == found.timing("fp32", 1).ratio_median == 1.0
    slower, _ = timed({"a": [[0, 0, 0, 10, 10, 10]], "b": [[0, 0, 0, 5, 12, 14]]}, rounds=3)
    assert slower.timing("b", 1).ratio is None
    slowed, _ = timed(
        {"a": [[0, 0, 0, 10, 10, 10]], "b": [[0, 0, 0, 5, 12, 14]]}, rounds=3, against="a"
    )
    assert (slowed.timing("b", 1).ratio, slowed.timing("b", 1).ratio_median) == (0.5, 1.2)


def test_each_number_of_threads_has_its_own_figures(timed):
    """A timing for each thread count, found by name and count; others are a KeyError."""
    found, _ = timed({"a": [[0, 0, 0, 8], [0, 0, 0, 5]]}, rounds=1, threads=(1, 2))
    assert [found.timing("a", n).warm.min_ms for n in (1, 2)] == [8.0, 5.0]
    with pytest.raises(KeyError):
        found.timing("a", 4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"against": "c"}, "one of a, b expected, got c"),
        ({"entries": {"d": {}}}, "one of a, b expected, got d"),
        ({"rounds": 0}, "one round expected"),
        ({"threads": ()}, "one number of threads"),
        ({"threads": (0,)}, "one number of threads"),
        ({"models": {}}, "at least one model"),
    ],
)
def test_what_is_not_there_is_refused(change, told):
    """An unknown model, no model, no round and no thread are refused before anything is run."""
    given = {"models": {"a": b"", "b": b""}, "threads": (1,), "rounds": 1, **change}
    models = given.pop("models")
    with pytest.raises(UserError, match=told):
        profile(models, [FACE], **given)


def test_a_model_that_onnxruntime_does_not_take_is_named(tiny_embedder):
    """Among several the broken one is named."""
    models = {"good.onnx": tiny_embedder().read_bytes(), "broken.onnx": b"not a graph"}
    with pytest.raises(ModelError, match=r"broken\.onnx: onnxruntime .* cannot load"):
        profile(models, [FACE], threads=(1,), rounds=1)


def test_a_session_entry_reaches_its_model_only(tiny_embedder, monkeypatch):
    """Entries go to the model they are for, in this process and in the child."""
    seen = []
    real = module.daemon_session

    def spy(data, threads, entries, prefix):
        seen.append(dict(entries))
        return real(data, threads, entries, prefix)

    monkeypatch.setattr(module, "daemon_session", spy)
    monkeypatch.setattr(module, "_child", lambda _, request: seen.append(request["entries"]) or ONE)
    data, entry = tiny_embedder().read_bytes(), {"session.disable_quant_qdq": "1"}
    profile({"a": data, "b": data}, [FACE], threads=(1,), rounds=1, entries={"b": entry}, starts=1)
    assert seen == [{}, entry, {}, {}, entry, entry]


ONE = {"session_ms": 1.0, "first_run_ms": 1.0, "before_bytes": 1, "peak_bytes": 1}


def test_cold_figures_are_medians_of_fresh_processes(tiny_embedder, monkeypatch):
    """One slow start of three changes nothing."""
    told = iter([9.0, 1.0, 2.0])
    monkeypatch.setattr(module, "_child", lambda *_: {**ONE, "session_ms": next(told)})
    found = profile({"a": tiny_embedder().read_bytes()}, [FACE], threads=(1,), rounds=1)
    assert found.timing("a", 1).cold.session_ms == 2.0


def events(kinds, runs):
    """A profile as onnxruntime writes it: each run has an event per node, then its own end."""
    at, told = 0, []
    for spent in runs:
        began = at
        for number, (kind, us) in enumerate(zip(kinds, spent, strict=True)):
            name = f"{kind}_{number}_kernel_time"
            told.append(
                {"cat": "Node", "name": name, "ts": at, "dur": us, "args": {"op_name": kind}}
            )
            at += us
        told.append({"cat": "Session", "name": "model_run", "ts": began, "dur": at - began})
    return told


def test_operators_add_up():
    """Without the first run: milliseconds of one run by kind, nodes counted, costliest first."""
    kinds = ["Conv", "PRelu", "Conv"]
    rows = operators_of(events(kinds, [[9000, 9000, 9000], [1000, 500, 2000], [2000, 500, 3000]]))
    assert [(row.kind, row.count, row.total_ms) for row in rows] == [
        ("Conv", 2, 4.0),
        ("PRelu", 1, 0.5),
    ]
    assert sum(row.share for row in rows) == pytest.approx(1.0)


def test_one_run_is_no_profile():
    """The first run pays for what later ones have: alone it tells nothing."""
    with pytest.raises(ModelError, match="two runs or more"):
        operators_of(events(["Conv"], [[1000]]))


def test_a_real_profile_adds_up(tiny_embedder):
    """From onnxruntime itself: kinds of the graph, shares that sum to one, bytes of the file."""
    data = tiny_embedder().read_bytes()
    found = profile({"tiny": data}, [FACE], threads=(1, 2), rounds=2, starts=1)
    assert found.models[0].bytes == len(data)
    assert found.runtime == f"onnxruntime {ort.__version__}"
    for timing in found.models[0].timings:
        rows = timing.operators
        assert {"AveragePool", "MatMul"} <= {row.kind for row in rows}
        assert sum(row.share for row in rows) == pytest.approx(1.0)
        total = sum(row.total_ms for row in rows)
        assert [row.share for row in rows] == pytest.approx([r.total_ms / total for r in rows])
        assert timing.warm.runs == 2
        assert 0 < timing.cold.before_bytes <= timing.cold.peak_bytes


def test_memory_is_the_childs_and_not_the_parents(tiny_embedder):
    """A parent with 400 MiB resident does not make the model look large."""
    ballast = np.ones(BALLAST, dtype=np.uint8)
    assert peak_bytes() > BALLAST
    found = profile({"tiny": tiny_embedder().read_bytes()}, [FACE], threads=(1,), rounds=1)
    del ballast
    assert found.timing("tiny", 1).cold.peak_bytes < BALLAST


def test_the_child_imports_nothing_of_the_workshop():
    """What is measured is the model: onnx, matplotlib and scikit-learn are not in the child."""
    code = (
        "import sys, kiosk.lab.coldstart;"
        "bad = {'onnx', 'matplotlib', 'sklearn', 'scipy', 'rich', 'jinja2', 'yaml', 'cv2'};"
        "print(sorted(bad & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_child_that_dies_is_told(tiny_embedder):
    """The last line of its standard error, with the model's name and its exit status."""
    request = {"model": "/nowhere.onnx", "input": "x", "threads": 1, "entries": {}, "runs": 1}
    with pytest.raises(ModelError, match=r"tiny: a process of its own ended with 1: .*nowhere"):
        module._child("tiny", request)


def test_json_keys(tiny_embedder, crops, capsys):
    """`--json`: warm, cold, operators, bytes and ratio for each model and number of threads."""
    fp32, int8 = tiny_embedder(), tiny_embedder("int8.onnx")
    folder = crops(people=1, each=2)
    arguments = ["lab", "profile", str(int8), "--against", str(fp32), "--threads", "1,2"]
    arguments += ["--rounds", "2", "--starts", "1", "--images", str(folder), "--aligned", "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"machine", "runtime", "rounds", "against", "models", "advice"}
    assert document["against"] == "fp32.onnx"
    assert [model["name"] for model in document["models"]] == ["fp32.onnx", "int8.onnx"]
    for model, file in zip(document["models"], (fp32, int8), strict=True):
        assert set(model) == {"name", "bytes", "entries", "timings"}
        assert model["bytes"] == file.stat().st_size
        assert [timing["threads"] for timing in model["timings"]] == [1, 2]
        for timing in model["timings"]:
            assert set(timing["warm"]) == {"mean_ms", "median_ms", "p95_ms", "min_ms", "runs"}
            assert set(timing["cold"]) == {
                "session_ms",
                "first_run_ms",
                "before_bytes",
                "peak_bytes",
            }
            assert set(timing["operators"][0]) == {"kind", "count", "total_ms", "share"}
            assert timing["ratio"] > 0
            assert timing["ratio_median"] > 0


def test_the_table_names_what_was_measured(tiny_embedder, capsys):
    """Without --json: the machine, a row for each model, and its operators, on the golden faces."""
    assert main(["lab", "profile", str(tiny_embedder()), "--rounds", "1", "--starts", "1"]) == 0
    said = capsys.readouterr().out
    for part in (
        "fp32.onnx",
        "median",
        "p95",
        "peak MiB",
        "by operator",
        "MatMul",
        "1 round in turn",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--threads", "0"], "--threads: numbers of 1 to 16 expected, got '0'"),
        (["--threads", "1,x"], "--threads: numbers of 1 to 16"),
        (["--rounds", "0"], "--rounds and --starts"),
        (["--entry", "other.onnx:a=1"], "--entry: MODEL:KEY=VALUE expected, MODEL of fp32.onnx"),
    ],
)
def test_wrong_options_are_named(tiny_embedder, capsys, arguments, told):
    """Exit status 2 and one line for an option that makes no sense."""
    assert main(["lab", "profile", str(tiny_embedder()), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_lists_and_names(tmp_path):
    """Thread counts once each, in order; two files of one name are told apart by their paths."""
    assert threads_of("4, 1,4") == (4, 1)
    same = [tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx", tmp_path / "n.onnx"]
    names = names_of(same)
    assert names == {same[0]: str(same[0]), same[1]: str(same[1]), same[2]: "n.onnx"}
    assert entries_of(["n.onnx:k=v=w"], names) == {"n.onnx": {"k": "v=w"}}
