"""A model is never judged on a picture it was calibrated with."""

import hashlib

import pytest
import yaml

from kiosk.errors import UserError
from kiosk.lab.calibrated import hashes_of_folder, hashes_of_record, refuse_overlap


@pytest.fixture
def pictures(tmp_path):
    """Eight files that count as pictures, each of other bytes."""
    paths = [tmp_path / "set" / f"{number}.png" for number in range(8)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    return paths


def record(tmp_path, content):
    path = tmp_path / "quantization_config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def hashes(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def digest(listed):
    return hashlib.sha256("\n".join(sorted(listed)).encode()).hexdigest()


def test_other_pictures_are_let_pass(pictures):
    """No common file, no objection."""
    refuse_overlap(pictures[:4], frozenset(hashes(pictures[4:])), "calibration")


def test_a_copy_under_another_name_is_found(pictures, tmp_path):
    """The content counts: a renamed copy is refused by name."""
    copy = tmp_path / "other" / "renamed.jpg"
    copy.parent.mkdir()
    copy.write_bytes(pictures[2].read_bytes())
    with pytest.raises(UserError, match=r"1 of 1 are in .*set: .*renamed\.jpg; a model"):
        refuse_overlap([copy], hashes_of_folder(pictures[0].parent), pictures[0].parent)


def test_many_are_counted_and_the_first_named(pictures):
    """Five are named, the others counted."""
    with pytest.raises(UserError, match=r"8 of 8 .*4\.png and 3 more"):
        refuse_overlap(pictures, frozenset(hashes(pictures)), "calibration")


def test_a_record_lists_its_pictures(pictures, tmp_path):
    """The list is read and checked against its digest."""
    listed = hashes(pictures)
    path = record(tmp_path, {"calibration": {"files": listed, "digest": digest(listed)}})
    assert hashes_of_record(path) == frozenset(listed)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "a record in YAML expected"),
        ("- 1", r"calibration\.files expected"),
        ({"calibration": {"num_samples": 200}}, r"calibration\.files expected"),
        ({"calibration": {"files": []}}, r"calibration\.files expected"),
        ({"calibration": {"files": ["0a" * 32]}}, r"calibration\.digest expected, it has none"),
        ({"calibration": {"files": ["a.jpg"]}}, r"a SHA-256 expected, got 'a\.jpg'"),
        (
            {"calibration": {"files": ["0a" * 32], "digest": "0b" * 32}},
            rf"calibration\.digest .* expected of the files listed, got {'0b' * 32}",
        ),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, content, complaint):
    """Broken YAML, no list, no hash and a digest of another list: each refused by its key."""
    with pytest.raises(UserError, match=complaint):
        hashes_of_record(record(tmp_path, content))


def test_a_missing_record_is_named(tmp_path):
    """The file that is not there is named."""
    with pytest.raises(UserError, match=r"absent\.yaml: expected a file to read, No such file"):
        hashes_of_record(tmp_path / "absent.yaml")


def test_a_record_runs_no_code(tmp_path):
    """A tag that would build an object is refused."""
    with pytest.raises(UserError, match="a record in YAML expected"):
        hashes_of_record(record(tmp_path, "!!python/object/apply:os.getcwd []"))
