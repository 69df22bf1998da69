"""The fastest file that agrees runs; what does not is named; what was measured is remembered."""

import json
import os

import numpy as np
import pytest

from kiosk.clock import SystemClock
from kiosk.config import Models
from kiosk.errors import ModelError
from kiosk.types import Embedding
from kiosk.vision.choice_file import CHOICE_FILE
from kiosk.vision.embed import Embedder
from kiosk.vision.fallback import GuardedEmbedder
from kiosk.vision.manifest import load_manifest
from kiosk.vision.measure import AT_START, Effort, Measured, candidates, measure, time_interleaved
from kiosk.vision.selection import choose, open_exact, open_selected


def found(id_, ms, refused=""):
    return Measured(id_, refused=refused, cosine=1.0, mean_cosine=1.0, min_ms=ms)


@pytest.mark.parametrize(
    ("int8_ms", "prefer", "chosen", "reason"),
    [
        (5.0, "auto", "a-int8", "the fastest that agrees: INT8 5.00 ms, FP32 8.00 ms"),
        (9.0, "auto", "a-fp32", "INT8 is not faster: INT8 9.00 ms, FP32 8.00 ms"),
        (8.0, "auto", "a-fp32", "INT8 is not faster"),
        (7.9, "auto", "a-fp32", "INT8 is not faster"),
        (9.0, "int8", "a-int8", 'prefer = "int8"'),
        (5.0, "fp32", "a-fp32", 'prefer = "fp32"'),
    ],
)
def test_int8_must_win(int8_ms, prefer, chosen, reason):
    """INT8 is taken if it is clearly faster or wished for; a tie goes to FP32."""
    made = choose([found("a-fp32", 8.0), found("b-fp32", 12.0), found("a-int8", int8_ms)], prefer)
    assert made.chosen.id == chosen
    assert made.reason.startswith(reason)
    if chosen == "a-int8":
        assert (made.spare.id, made.rival.id) == ("a-fp32", "a-fp32")
    else:
        assert (made.spare, made.rival.id) == (None, "a-int8")


def test_the_fastest_of_several_is_taken():
    """Two INT8 files for two kinds of processor: each board takes its own."""
    made = choose([found("x-int8", 6.0), found("y-int8", 4.0), found("a-fp32", 8.0)], "auto")
    assert made.chosen.id == "y-int8"


def test_a_refused_file_is_never_taken():
    """However fast it once was, and even if it is what was wished for."""
    bad = found("a-int8", 1.0, refused="cosine 0.3")
    assert choose([bad, found("a-fp32", 8.0)], "int8").chosen.id == "a-fp32"
    with pytest.raises(ModelError, match=r"none does: cosine 0\.3"):
        choose([bad], "auto")


def test_fp32_alone_means_fp32():
    """prefer = "fp32" does not turn to INT8 when the FP32 file is gone: it says so."""
    with pytest.raises(ModelError, match="there is only INT8"):
        choose([found("a-int8", 1.0)], "fp32")


class Work:
    """A clock, and embedders that let it run on by what they cost."""

    def __init__(self):
        self.ns = 0

    def boottime_ns(self):
        return self.ns

    def embedder(self, costs_ms):
        clock, costs = self, iter(costs_ms)

        class Costly:
            def embed(self, _crop):
                clock.ns += int(next(costs) * 1_000_000)

        return Costly()


def test_timing_is_interleaved_and_bounded():
    """Each in turn; when the budget is spent no further round begins, but three are made."""
    work = Work()
    embedders = {"a": work.embedder([9, 5, 6, 7]), "b": work.embedder([90, 80, 70, 60])}
    effort = Effort(budget_s=0.05, rounds=50)
    times = time_interleaved(embedders, None, clock=work, effort=effort)
    assert times == ({"a": [9, 5, 6], "b": [90, 80, 70]}, {})
    ample = {"a": work.embedder([1] * 50)}
    assert len(time_interleaved(ample, None, clock=work, effort=effort)[0]["a"]) == 50


def test_a_start_is_measured_within_three_seconds():
    """The budget leaves room for the round that was under way when it ended."""
    assert AT_START.budget_s <= 2.0


def test_both_files_are_measured_and_both_are_loaded(put_int8, choice):
    """The INT8 file agrees with the golden faces, and FP32 stands behind it."""
    put_int8()
    selection, told = choice(prefer="int8")
    assert selection.main.id == "tiny-int8"
    assert selection.spare.id == "tiny-fp32"
    fields = told["model.selected"]
    assert fields["model"] == "tiny-int8"
    assert fields["fallback"] == "tiny-fp32"
    assert fields["cosine"] > 0.98
    assert fields["latency_ms"] > 0
    assert fields["cached"] is False
    assert "model.refused" not in told
    embedder, shadow = open_selected(selection, Models(), SystemClock())
    assert isinstance(embedder, GuardedEmbedder)
    assert shadow is None


def test_what_was_measured_is_remembered(put_int8, choice, stopped):
    """A later start looks at no clock, takes the same file, and says that it remembered."""
    put_int8()
    first, _ = choice(prefer="int8")
    second, told = choice(prefer="int8", clock=stopped)
    assert told["model.selected"]["cached"] is True
    assert (second.main.id, second.spare.id) == (first.main.id, first.spare.id)
    assert second.choice == first.choice


def test_the_file_of_choices_holds_no_secret_and_is_json(put_int8, choice, tmp_path):
    """Plain JSON for its owner, with what was measured and under which key."""
    put_int8()
    choice()
    path = tmp_path / "state" / CHOICE_FILE
    document = json.loads(path.read_text())
    assert set(document) == {"version", "key", "measured"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [CHOICE_FILE]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"threads": 2}, "threads"),
        ({"prefer": "auto"}, "prefer"),
        ({"prefer": "fp32"}, "models,fed,prefer"),
    ],
)
def test_other_settings_are_measured_anew(put_int8, choice, change, changed):
    """Threads and preference are part of what was measured."""
    put_int8()
    choice(prefer="int8")
    _, told = choice(**({"prefer": "int8"} | change))
    assert told["model.cache_outdated"]["changed"] == changed
    assert told["model.selected"]["cached"] is False


def test_another_cpu_is_measured_anew(put_int8, choice, tmp_path):
    """A card that moves from a Pi 5 to a Pi 4 does not take the old board's word."""
    put_int8()
    choice()
    (tmp_path / "cpuinfo").write_text("Features\t: asimd\nCPU part\t: 0xd08\n")
    _, told = choice()
    assert told["model.cache_outdated"]["changed"] == "cpu"
    assert told["model.selected"]["cached"] is False


def test_another_runtime_is_measured_anew(put_int8, choice, tmp_path):
    """A deploy that brings a new onnxruntime measures again."""
    put_int8()
    choice()
    path = tmp_path / "state" / CHOICE_FILE
    path.write_text(path.read_text().replace("onnxruntime 1.", "onnxruntime 0."))
    _, told = choice()
    assert told["model.cache_outdated"]["changed"] == "runtime"


def test_a_file_that_changed_since_is_seen_at_a_cached_start(put_int8, choice, tmp_path, stopped):
    """Same size and time of change, one other bit: the hash finds it, and FP32 runs."""
    path, _ = put_int8()
    choice(prefer="int8")
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    selection, told = choice(prefer="int8")
    assert "has SHA-256" in told["model.cache_ignored"]["reason"]
    assert "tiny-int8.onnx has SHA-256" in told["model.refused"]["reason"]
    assert selection.main.id == "tiny-fp32"
    _, told = choice(prefer="int8", clock=stopped)
    assert told["model.refused"]["model"] == "tiny-int8", "named again at every start"


def test_a_release_with_the_same_models_measures_nothing_anew(put_int8, choice, stopped):
    """Its files have other times of change; what is chosen does not change with each deploy."""
    path, _ = put_int8()
    choice()
    os.utime(path, (1, 1))
    _, told = choice(clock=stopped)
    assert told["model.selected"]["cached"] is True


def test_a_file_that_was_put_right_is_looked_at_again(put_int8, choice):
    """A refusal is not remembered beyond the file that earned it."""
    path, _ = put_int8()
    data = path.read_bytes()
    path.write_bytes(data[:100])
    assert choice(prefer="int8")[0].main.id == "tiny-fp32"
    path.write_bytes(data)
    assert choice(prefer="int8")[0].main.id == "tiny-int8"


def test_a_folder_that_cannot_be_written_costs_time_only(put_int8, choice, tmp_path):
    """The choice holds for this run, and the journal says that it is not kept."""
    put_int8()
    (tmp_path / "state" / CHOICE_FILE).mkdir()
    selection, told = choice(prefer="int8")
    assert selection.main.id == "tiny-int8"
    assert "model.cache_not_written" in told


def test_a_reader_leaves_the_folder_alone(put_int8, choice, tmp_path):
    """Enrolment takes what is remembered, and writes nothing where the daemon lives."""
    put_int8()
    choice(keep=False)
    assert list((tmp_path / "state").iterdir()) == []


def test_rubbish_is_refused_at_the_start(put_int8, choice):
    """Weights of noise under a right hash: loads, runs, and is found out by the golden faces."""
    rng = np.random.default_rng(3)
    put_int8(spoil=lambda w: w.__setitem__(slice(None), rng.integers(-9, 9, w.shape)))
    selection, told = choice(prefer="int8")
    assert "to the golden faces expected" in told["model.refused"]["reason"]
    assert selection.main.id == "tiny-fp32"
    assert told["model.no_int8"]["model"] == "tiny-fp32"


def test_int8_wished_for_but_not_there(put_model, tiny, choice):
    """prefer = "int8" without an INT8 file warns and runs FP32."""
    put_model(tiny())
    selection, told = choice(prefer="int8")
    assert selection.main.id == "tiny-fp32"
    assert told["model.no_int8"]["meaning"].endswith("FP32 is")


def test_the_configured_file_that_is_missing_is_named(put_int8, choice):
    """The file that the configuration names is gone: another of its space serves."""
    path, _ = put_int8()
    (path.parent / "tiny.onnx").unlink()
    selection, told = choice()
    assert told["model.refused"]["model"] == "tiny-fp32"
    assert "tiny.onnx expected" in told["model.refused"]["reason"]
    assert selection.main.id == "tiny-int8"
    assert "a face that INT8 fails on is dropped" in told["model.no_fallback"]["meaning"]


def test_files_to_bring_that_nobody_brought_are_no_candidates():
    """An entry of the manifest without its file is no complaint unless it is the one wanted."""
    ids = [entry.id for entry in candidates(load_manifest(), "mobilefacenet-fp32")]
    assert ids[:2] == ["mobilefacenet-fp32", "mobilefacenet-prelu-fp32"]
    (wanted,) = candidates(load_manifest(), "w600k-r50-fp32")
    assert wanted.id == "w600k-r50-fp32"


def test_no_file_that_can_be_used_ends_it(put_int8, choice):
    """Every file is named with what is wrong with it."""
    path, _ = put_int8()
    path.write_bytes(b"")
    (path.parent / "tiny.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"none does: .*tiny\.onnx.*tiny-int8\.onnx"):
        choice()


def test_models_without_golden_faces_are_told(put_int8, choice):
    """A model of one's own loads and runs, and the journal claims no more."""
    path, _ = put_int8()
    (path.parent / "golden" / "tiny.json").unlink()
    selection, told = choice(prefer="int8")
    assert selection.faces == ()
    assert told["model.selected"]["cosine"] is None
    assert "only that it loads and runs" in told["model.unproven"]["meaning"]


def test_golden_faces_that_cannot_be_read_are_no_golden_faces(put_int8, choice):
    """Damaged golden faces are not taken for none: nothing would be proven, silently."""
    path, _ = put_int8()
    (path.parent / "golden" / "0.png").write_bytes(b"")
    with pytest.raises(ModelError, match="golden faces expected at"):
        choice()


def test_an_output_that_is_not_finite_is_refused_without_golden_faces(pin, tiny, monkeypatch):
    """Without golden faces a model must at least give finite numbers."""

    class Broken:
        id = "x-int8"

        def embed(self, _):
            return Embedding.of(np.full(9, np.nan), "tiny")

    entry = pin(tiny().onnx_bytes())
    monkeypatch.setattr("kiosk.vision.measure.Embedder", lambda *_: Broken())
    (only,), usable = measure([entry], (), threads=1, clock=SystemClock(), effort=AT_START)
    assert "cannot be normalised" in only.refused
    assert usable == {}


def test_int8_can_be_the_shadow(put_int8, choice):
    """With FP32 in use the best INT8 file is the shadow, though prefer rules it out for use."""
    put_int8()
    selection, _ = choice(prefer="fp32", shadow_every=3)
    _, shadow = open_selected(selection, Models(shadow_every=3), SystemClock())
    assert selection.main.id == "tiny-fp32"
    assert shadow.document()["other"] == "tiny-int8"


def test_a_shadow_of_nothing_is_told(put_model, tiny, choice, caplog):
    """One file alone cannot be compared."""
    put_model(tiny())
    selection, _ = choice(shadow_every=3)
    _, shadow = open_selected(selection, Models(shadow_every=3), SystemClock())
    assert shadow is None
    assert caplog.records[-1].message == "model.no_shadow"


def test_int8_alone_is_guarded(put_int8, choice):
    """Without FP32 the golden faces still watch it."""
    path, _ = put_int8()
    (path.parent / "tiny.onnx").unlink()
    selection, _ = choice()
    embedder, _ = open_selected(selection, Models(), SystemClock())
    assert isinstance(embedder, GuardedEmbedder)
    assert embedder.id == "tiny-int8"


@pytest.mark.parametrize(("id_", "kind"), [("tiny-int8", GuardedEmbedder), ("tiny-fp32", Embedder)])
def test_the_very_file_is_watched_and_has_no_shadow(put_int8, tmp_path, caplog, id_, kind):
    """prefer = "exact": INT8 sings, FP32 has no need to, and a wish for a shadow is answered."""
    put_int8()
    models = Models(
        embedder=id_, prefer="exact", extra_dirs=(str(tmp_path),), shadow_every=5, threads=1
    )
    embedder = open_exact(models, load_manifest(models.extra_dirs), SystemClock())
    assert isinstance(embedder, kind)
    assert embedder.id == id_
    assert caplog.records[-1].message == "model.no_shadow"
