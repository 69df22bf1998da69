"""Folders of faces: what is taken, what is skipped and named, and which are the same."""

import shutil

import cv2
import numpy as np
import pytest

from kiosk.errors import UserError
from kiosk.lab.faces import pictures_of, read_folder
from lab.nets import write_crops


def test_a_folder_that_is_missing_or_empty_is_refused_by_name(tmp_path):
    """In words: there is none, or it has no picture."""
    with pytest.raises(UserError, match="none: a folder of pictures expected"):
        read_folder(tmp_path / "none", aligned=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: pictures expected \(\.bmp"):
        read_folder(tmp_path / "empty", aligned=True)
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    (tmp_path / "empty" / "folder.png").mkdir()
    with pytest.raises(UserError, match="the folder has none"):
        read_folder(tmp_path / "empty", aligned=True)


def test_broken_files_are_named_skipped_and_counted(tmp_path):
    """Half a picture, a text, nothing at all, another size: each with its reason, in order."""
    folder = write_crops(tmp_path / "crops", people=1, each=3)
    whole = (folder / "p0" / "0.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 3])
    (folder / "b.jpg").write_text("no picture")
    (folder / "c.png").write_bytes(b"")
    cv2.imwrite(str(folder / "d.png"), np.zeros((50, 60, 3), np.uint8))
    found = read_folder(folder, aligned=True)
    assert len(found.faces) == 3
    assert [item.path.name for item in found.skipped] == ["a.png", "b.jpg", "c.png", "d.png"]
    assert all(str(item.path) in item.reason for item in found.skipped)
    assert "112x112 expected, got 60x50" in found.skipped[3].reason


def test_a_folder_of_broken_files_alone_is_refused_with_the_first(tmp_path):
    """How many, and why the first gave nothing."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(UserError, match=r"faces expected, none in 2 pictures, the first: .*a\.png"):
        read_folder(tmp_path, aligned=True)


def test_photographs_without_a_face_are_refused_with_a_way_out(tmp_path):
    """A grey wall: none found; crops would have wanted --aligned."""
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 400, 3), 127, np.uint8))
    with pytest.raises(UserError, match="a face expected, none found") as caught:
        read_folder(tmp_path, aligned=False)
    assert "--aligned" in caught.value.hint


def test_photographs_are_aligned_by_the_daemons_own_code(people, tmp_path):
    """The largest face of a photograph, 112x112; a wall beside it is skipped."""
    photograph = sorted(p for p in people.rglob("*") if p.suffix in {".jpg", ".png"})[0]
    shutil.copy(photograph, tmp_path / photograph.name)
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 400, 3), 127, np.uint8))
    found = read_folder(tmp_path, aligned=False)
    assert [face.path.name for face in found.faces] == [photograph.name]
    assert found.faces[0].pixels.shape == (112, 112, 3)
    assert [item.path.name for item in found.skipped] == ["wall.png"]


@pytest.mark.parametrize(("samples", "taken"), [(1, 1), (4, 4), (7, 7), (24, 24), (99, 24)])
def test_samples_are_spread_over_the_people(tmp_path, samples, taken):
    """Not the first ones: with as many samples as people each gives one."""
    folder = write_crops(tmp_path / "crops", people=4, each=6)
    found = read_folder(folder, aligned=True, samples=samples)
    assert len(found.faces) == taken
    assert len({face.path for face in found.faces}) == taken
    assert len({face.path.parent for face in found.faces}) == min(samples, 4)


def test_faces_come_in_the_order_of_their_paths(tmp_path):
    """The same folder gives the same inputs in the same order on every machine."""
    folder = write_crops(tmp_path / "crops", people=3, each=3)
    paths = [face.path for face in read_folder(folder, aligned=True).faces]
    assert paths == sorted(paths) == pictures_of(folder)


def test_the_digest_knows_pictures_not_places(tmp_path):
    """Other names, other folders, another order: the same digest; another picture: another."""
    one = write_crops(tmp_path / "one", people=2, each=2)
    two = tmp_path / "two"
    two.mkdir()
    for number, path in enumerate(sorted(one.rglob("*.png"), reverse=True)):
        shutil.copy(path, two / f"{number}.png")
    first, second = (read_folder(folder, aligned=True) for folder in (one, two))
    assert first.digest == second.digest
    (two / "0.png").unlink()
    assert read_folder(two, aligned=True).digest != first.digest


def test_an_overlap_is_found_by_content(tmp_path):
    """One picture under another name is in both; one that looks alike in other bytes is not."""
    one = write_crops(tmp_path / "one", people=2, each=2)
    two = write_crops(tmp_path / "two", people=1, each=2, seed=5)
    shutil.copy(one / "p1" / "0.png", two / "again.png")
    again = cv2.imread(str(one / "p0" / "0.png"))
    cv2.imwrite(str(two / "same.bmp"), again)
    first, second = (read_folder(folder, aligned=True) for folder in (one, two))
    assert [face.path.name for face in second.overlap(first)] == ["again.png"]
    assert [face.path for face in first.overlap(second)] == [one / "p1" / "0.png"]
