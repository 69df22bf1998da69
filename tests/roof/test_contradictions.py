"""`kiosk enrol` with a face or a picture that is somebody else's, with a daemon and without."""

import json
import shutil

import pytest

from kiosk.__main__ import main


@pytest.fixture(params=["without a daemon", "with a daemon"])
def enrol(request, daemon, capsys):
    """A function that runs `kiosk enrol`: exit status, standard output, standard error."""
    if request.param == "with a daemon":
        daemon.start()

    def run(person, *arguments):
        capsys.readouterr()
        status = main(["enrol", person, *map(str, arguments), "--config", str(daemon.path)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield run
    if daemon.process is not None:
        assert daemon.stop() == 0


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["for a person", "for a program"])
def test_somebody_elses_face_or_picture_is_refused(enrol, form, daemon, people, tmp_path):
    """Status 2, one line that names pictures and person, and nothing is changed."""
    obama, same_face = people / "obama.jpg", people / "obama3.jpg"
    copy = shutil.copy(obama, tmp_path / "copy.jpg")
    assert enrol("obama", obama)[0] == 0
    sealed = daemon.folder / "state" / "gallery.sealed"
    before = sealed.read_bytes()
    status, out, err = enrol("anna", people / "biden.jpg", copy, same_face, *form)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert f"{copy}: this picture is enrolled as obama already" in line
    # No figure: without a daemon each call may measure another file of the space to be the fastest.
    assert f"{same_face}: looks like obama (cosine " in line
    assert line.endswith("; nothing was enrolled, --force enrols them all the same")
    assert sealed.read_bytes() == before
    assert daemon.json("gallery", "list")["people"] == {"obama": 1}


def test_force_enrols_them_and_tells(enrol, people, tmp_path):
    """Status 0; the same sentences on standard error, or as `warnings` in JSON."""
    obama, same_face = people / "obama.jpg", people / "obama3.jpg"
    assert enrol("obama", obama)[0] == 0
    status, out, err = enrol("anna", same_face, "--force")
    assert (status, out) == (0, "anna: 1 face enrolled\n")
    assert f"kiosk enrol: {same_face}: looks like obama (cosine " in err
    copy = shutil.copy(obama, tmp_path / "copy.jpg")
    status, out, err = enrol("bert", copy, "--force", "--json")
    document = json.loads(out)
    assert (status, err, document["people"]) == (0, "", {"bert": 1})
    assert f"{copy}: this picture is enrolled as obama already" in document["warnings"]


def test_a_face_unlike_the_persons_own_is_enrolled_and_told(enrol, people):
    """Two different people under one id: status 0 with a warning; the same again without one."""
    status, out, err = enrol("obama", people / "obama.jpg", people / "obama3.jpg")
    assert (status, out, err) == (0, "obama: 2 faces enrolled\n", "")
    biden = people / "biden.jpg"
    status, out, err = enrol("obama", biden)
    assert (status, out) == (0, "obama: 3 faces enrolled\n")
    assert f"kiosk enrol: {biden}: unlike the other faces of obama (cosine " in err
    status, out, _ = enrol("obama", biden, "--json")
    assert (status, json.loads(out)) == (0, {"people": {"obama": 3}, "warnings": []})


@pytest.fixture
def strict(daemon):
    """A configuration by which Obama's two photographs are not one person's."""
    daemon.write("http://127.0.0.1:9", extra="[recognition]\nthreshold = 0.9\n")


def test_the_threshold_of_the_configuration_counts(strict, enrol, people):
    """Where the kiosk would not take one face for the other, neither does the enrolment."""
    assert enrol("obama", people / "obama.jpg")[0] == 0
    status, out, _ = enrol("other", people / "obama3.jpg", "--json")
    assert (status, json.loads(out)["warnings"]) == (0, [])
