"""The search ends with plans that pass or says what came nearest, and keeps its judges apart."""

import pytest

from kiosk.errors import ModelError
from kiosk.lab import search as module
from kiosk.lab.assemble import assemble, judged_graph
from kiosk.lab.faces import read_folder
from kiosk.lab.identities import Identities
from kiosk.lab.prepare import base_of, float_graph
from kiosk.lab.runner import inputs_of
from kiosk.lab.search import Search
from lab.nets import mobile, subject_of, write_crops


@pytest.fixture
def faces(tmp_path):
    return read_folder(write_crops(tmp_path / "crops", people=4, each=6), aligned=True).faces


@pytest.fixture
def subject(tmp_path):
    return subject_of(mobile(0), tmp_path / "fp32.onnx")


# Two calibrations instead of four: time.
SHORT = (("MinMax", 100.0), ("Percentile", 99.99))


def search_of(subject, faces, tmp_path):
    (tmp_path / "ranges").mkdir(exist_ok=True)
    return Search(
        subject, base_of(subject), faces, tmp_path / "ranges", threads=1, calibrations=SHORT
    )


def test_a_search_ends_with_plans_that_can_be_assembled(subject, faces, tmp_path):
    """Each plan's file is made from its ranges; every layer was measured; tries are told."""
    search = search_of(subject, faces, tmp_path)
    found = search.run()
    assert {plan.variant for plan in found.plans} <= {"qdq-s8", "nhwc-s8", "qdq-u8", "nhwc-u8"}
    assert found.plans
    assert len(found.layers) == 7
    names = [tried.name for tried in found.tries]
    assert "qdq S8S8 MinMax" in names
    assert len(set(names)) == len(names)
    ended = [name for name in names if "ranges of all faces" in name]
    assert [name for name in ended if "biases corrected" not in name]
    assert len(ended) == 2 * len(found.plans)
    assert any(name.startswith("qdq U8U8") for name in names)
    for plan in found.plans:
        made = assemble(base_of(subject), found.factors, plan, search.range_file(plan))
        assert made.shipped.ByteSize() < subject.proto.ByteSize()
        graph = float_graph(base_of(subject), found.factors)
        assert judged_graph(graph, plan, search.range_file(plan)) == made.judged


def test_nobody_who_judges_is_calibrated_on(subject, faces, tmp_path, monkeypatch):
    """Until plans are found no range is taken from the people judged on; then all are used."""
    seen, original = [], module.write_ranges
    ranged, measured = [], module.channel_ranges

    def spy(model, inputs, target, **options):
        seen.append((target.name, [values.tobytes() for values in inputs]))
        return original(model, inputs, target, **options)

    def look(model, inputs, names):
        ranged.append([values.tobytes() for values in inputs])
        return measured(model, inputs, names)

    monkeypatch.setattr(module, "write_ranges", spy)
    monkeypatch.setattr(module, "channel_ranges", look)
    search_of(subject, faces, tmp_path).run()
    held = Identities.of(faces).every(4)
    pictures = [values.tobytes() for values in inputs_of(faces, subject.input)]
    judges = {pictures[i] for i in held}
    people = {faces[i].path.parent for i in held}
    assert len(people) == 1
    assert len(judges) == 6
    fitted = [inputs for name, inputs in seen if name.startswith("fit-")]
    assert fitted
    for inputs in (*fitted, ranged[0]):
        assert not judges & set(inputs)
        assert len(inputs) == 18
    assert [len(inputs) for name, inputs in seen if name.startswith("all-")]
    assert all(set(inputs) == set(pictures) for name, inputs in seen if name.startswith("all-"))


def test_a_search_without_success_names_the_best(subject, faces, tmp_path, monkeypatch):
    """Limits that nothing reaches: how many were tried, each under a name of its own, and how near
    the best came."""
    told = []
    monkeypatch.setattr(module, "say", told.append)
    monkeypatch.setattr(module, "LEAST_MEAN", 1.1)
    with pytest.raises(ModelError, match=r"mean cosine 1\.1 expected, the best of \d+ has 0\.\d+"):
        search_of(subject, faces, tmp_path).run()
    names = [line.partition(":")[0] for line in told if " in INT8, " in line]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("nhwc U8S8") and " but " in name]


def test_a_graph_without_an_integer_form_keeps_the_other_one(subject, faces, tmp_path, monkeypatch):
    """What cannot be had with channels last is no candidate, and no reason to give up."""

    def refuse(_):
        raise ModelError("no such form")

    monkeypatch.setattr("kiosk.lab.assemble.in_integers", refuse)
    found = search_of(subject, faces, tmp_path).run()
    assert {plan.form for plan in found.plans} == {"qdq"}


def test_one_face_is_too_few_to_search_with(subject, faces, tmp_path):
    """It cannot both calibrate and judge."""
    with pytest.raises(ModelError, match="two faces or more expected"):
        search_of(subject, faces[:1], tmp_path)


@pytest.mark.parametrize(("names", "held"), [("aabbccdd", {6, 7}), ("abcd", {3}), ("aaaa", {3})])
def test_whole_people_judge_where_they_are_known(names, held):
    """Every fourth person; with one person, or none in a folder of their own, every fourth face."""
    assert Identities(tuple(names)).every(4) == held
