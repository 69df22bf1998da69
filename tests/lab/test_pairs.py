"""Pairs from a CSV, from LFW's pairs.txt and from folders, and every complaint by its line."""

import shutil

import cv2
import numpy as np
import pytest

from kiosk.errors import UserError
from kiosk.lab.faces import read_folder
from kiosk.lab.identities import Identities
from kiosk.lab.pairs import from_csv, from_folders, from_lfw


def csv_of(tmp_path, text):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode())
    return path


def triples(pairs):
    names = [path.name for path in pairs.pictures]
    return [
        (names[a], names[b], bool(same))
        for a, b, same in zip(pairs.left, pairs.right, pairs.same, strict=True)
    ]


@pytest.mark.parametrize("head", ["", "first,second,label\n", "\ufefffirst,second,same\r\n"])
def test_a_csv_with_and_without_header(tmp_path, head):
    """Both spellings of the labels, blanks and empty lines, with a header or without."""
    pairs = from_csv(
        csv_of(tmp_path, head + "a.png, b.png ,1\n\na.png,c.png,Different\nb.png,c.png,0\n")
    )
    assert triples(pairs) == [
        ("a.png", "b.png", True),
        ("a.png", "c.png", False),
        ("b.png", "c.png", False),
    ]
    assert pairs.pictures[0] == tmp_path / "a.png"
    assert pairs.people is None
    assert pairs.fold is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a.png,b.png,1\na.png,b.png\n", r"line 2: two paths and a label expected, got 2 cells"),
        ("a.png,b.png,yes\n", r"line 1: a label expected .*got 'yes'"),
        ("x,y,label\na.png,b.png,2\n", r"line 2: a label expected .*got '2'"),
        ("a.png,a.png,1\n", r"line 1: two pictures expected, got a\.png twice"),
        ("a.png,b.png,1\nb.png,a.png,0\n", r"line 2: line 1 gives this pair the other label"),
        ("first,second,label\n", r"pairs expected, the file has none"),
    ],
)
def test_a_csv_that_is_wrong_is_named_by_its_line(tmp_path, text, complaint):
    """Cells, labels, a picture with itself, a contradiction: each with its line."""
    with pytest.raises(UserError, match=complaint):
        from_csv(csv_of(tmp_path, text))


def test_a_csv_that_is_none(tmp_path):
    """A missing file and one that is no UTF-8 are named."""
    with pytest.raises(UserError, match=r"absent\.csv: a CSV of pairs expected"):
        from_csv(tmp_path / "absent.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.csv: a CSV of pairs in UTF-8 expected"):
        from_csv(path)


def test_a_pair_named_twice_counts_once(tmp_path):
    """The same pair with the same label, in either order, is one pair."""
    assert len(from_csv(csv_of(tmp_path, "a.png,b.png,1\nb.png,a.png,same\n"))) == 1


LFW = "2\t2\nAda\t1\t2\nBob\t1\t3\nAda\t1\tBob\t2\nBob\t1\tCem\t1\n"
LFW += "Dee\t1\t2\nDee\t2\t3\nDee\t1\tEve\t1\nEve\t1\tFay\t1\n"


def lfw(tmp_path, text):
    images = tmp_path / "lfw"
    images.mkdir(exist_ok=True)
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    return from_lfw(path, images)


def test_lfw_pairs_of_both_forms(tmp_path):
    """Three words are one person, four are two; folds go by place, identities by name."""
    pairs = lfw(tmp_path, LFW)
    assert triples(pairs) == [
        ("Ada_0001.jpg", "Ada_0002.jpg", True),
        ("Bob_0001.jpg", "Bob_0003.jpg", True),
        ("Ada_0001.jpg", "Bob_0002.jpg", False),
        ("Bob_0001.jpg", "Cem_0001.jpg", False),
        ("Dee_0001.jpg", "Dee_0002.jpg", True),
        ("Dee_0002.jpg", "Dee_0003.jpg", True),
        ("Dee_0001.jpg", "Eve_0001.jpg", False),
        ("Eve_0001.jpg", "Fay_0001.jpg", False),
    ]
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4
    assert pairs.pictures[0] == tmp_path / "lfw" / "Ada" / "Ada_0001.jpg"
    people = pairs.people
    assert (people[pairs.same][:, 0] == people[pairs.same][:, 1]).all()
    assert (people[~pairs.same][:, 0] != people[~pairs.same][:, 1]).all()


def test_lfw_s_development_sets_have_no_folds(tmp_path):
    """One number in the first line: so many of each kind, and no folds."""
    pairs = lfw(tmp_path, "1\nAda 1 2\nAda 1 Bob 1\n")
    assert len(pairs) == 2
    assert pairs.fold is None


def test_lfw_pictures_of_another_suffix(tmp_path):
    """Crops saved as PNG under LFW's names are found."""
    (tmp_path / "lfw" / "Ada").mkdir(parents=True)
    (tmp_path / "lfw" / "Ada" / "Ada_0002.png").write_bytes(b"")
    names = [path.name for path in lfw(tmp_path, "1\nAda 1 2\nAda 1 Bob 1\n").pictures]
    assert names == ["Ada_0001.jpg", "Ada_0002.png", "Bob_0001.jpg"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"line 1: folds and pairs in each expected \(10 300\), got ''"),
        ("Ada 1 2\n", r"line 1: folds and pairs"),
        ("1\nAda 1\nAda 1 Bob 1\n", r"line 2: NAME N1 N2 .* got 2 words"),
        ("1\nAda 1 two\nAda 1 Bob 1\n", r"line 2: the number of a picture expected, got 'two'"),
        ("1\nAda 1 0\nAda 1 Bob 1\n", r"line 2: the number of a picture expected, got '0'"),
        ("1\nAda 1 2\nAda 1 Ada 2\n", r"line 3: two people expected"),
        ("1\nAda 2 2\nAda 1 Bob 2\n", r"line 2: two pictures expected"),
        ("10 300\nAda 1 2\nAda 1 Bob 1\n", r"10 x 2 x 300 pairs expected as line 1 says, got 2"),
    ],
)
def test_lfw_pairs_that_are_wrong_are_named_by_their_line(tmp_path, text, complaint):
    """Each mistake with its line; a file that is cut short by its count."""
    with pytest.raises(UserError, match=complaint):
        lfw(tmp_path, text)


def test_lfw_without_its_pictures(tmp_path):
    """The folder that is not there is named before anything is read."""
    with pytest.raises(UserError, match="absent: a folder of pictures expected"):
        from_lfw(tmp_path / "pairs.txt", tmp_path / "absent")


def people_in(tmp_path, **people):
    for name, contents in people.items():
        (tmp_path / name).mkdir()
        for number, content in enumerate(contents):
            (tmp_path / name / f"{number}.png").write_bytes(content.encode())
    return tmp_path


def test_folders_give_all_pairs(tmp_path):
    """Pictures of 2, 2 and 1: ten pairs, two of them genuine, identities known."""
    pairs = from_folders(people_in(tmp_path, a=["1", "2"], b=["3", "4"], c=["5"]))
    assert (len(pairs), int(pairs.same.sum())) == (10, 2)
    people = pairs.people
    assert ((people[:, 0] == people[:, 1]) == pairs.same).all()
    assert not pairs.skipped


def test_copies_and_strays_are_left_out_by_name(tmp_path):
    """A second copy of a person's picture and one in no person's folder give no pairs."""
    folder = people_in(tmp_path, a=["1", "1", "2"], b=["3"])
    (folder / "stray.png").write_bytes(b"9")
    pairs = from_folders(folder)
    assert len(pairs.pictures) == 3
    reasons = [item.reason for item in pairs.skipped]
    assert any("the same file as" in reason and "1.png" in reason for reason in reasons)
    assert any("stray.png: lies in no person's folder" in reason for reason in reasons)


def test_one_picture_of_two_people_makes_no_pair(tmp_path):
    """The same file under two names would be an impostor pair of cosine 1: both are left out."""
    pairs = from_folders(people_in(tmp_path, a=["1", "2", "3"], b=["1", "1", "4"]))
    assert [p.relative_to(tmp_path).as_posix() for p in pairs.pictures] == [
        "a/1.png",
        "a/2.png",
        "b/2.png",
    ]
    reasons = [item.reason for item in pairs.skipped]
    assert len(reasons) == 3
    assert "a/0.png: two people's, the same file as" in reasons[0]
    assert reasons[0].endswith("b/0.png")


def test_a_build_counts_pairs_as_validate_does(tmp_path):
    """Copies, a picture of two people, strays and folders in a person's folder: one rule."""
    random = np.random.default_rng(0)
    for person in "abc":
        for side in "xy":
            (tmp_path / person / side).mkdir(parents=True)
            picture = random.integers(0, 255, (112, 112, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / person / side / "0.png"), picture)
        shutil.copy(tmp_path / person / "x" / "0.png", tmp_path / person / "copy.png")
    shutil.copy(tmp_path / "a" / "x" / "0.png", tmp_path / "b" / "also.png")
    shutil.copy(tmp_path / "c" / "x" / "0.png", tmp_path / "stray.png")
    pairs = from_folders(tmp_path)
    faces = read_folder(tmp_path, aligned=True).faces
    people = Identities.of(faces)
    _, same = people.scored(np.eye(len(faces), dtype=np.float32))
    assert people.count() == len(set(pairs.person.tolist())) == 3
    assert (len(same), int(same.sum())) == (len(pairs), int(pairs.same.sum())) == (10, 2)
    named = {item.path for item in people.skipped.values()}
    assert named == {item.path for item in pairs.skipped}


def test_one_person_makes_no_impostors(tmp_path):
    """A flat folder and a single person are refused with what is needed."""
    with pytest.raises(UserError, match="a folder for each of two people or more expected, got 1"):
        from_folders(people_in(tmp_path, a=["1", "2"]))


def test_too_many_pairs_are_refused(tmp_path, monkeypatch):
    """Above the limit the count is told and the way round."""
    monkeypatch.setattr("kiosk.lab.pairs.MOST_PAIRS", 2)
    with pytest.raises(UserError, match=r"at most 2 pairs expected, 3 pictures make 3"):
        from_folders(people_in(tmp_path, a=["1", "2"], b=["3"]))


def test_pictures_without_a_face_take_their_pairs_along(tmp_path):
    """Left out pictures drop their pairs; the others keep labels, people and folds."""
    pairs = lfw(tmp_path, LFW)
    kept = [p for p in reversed(pairs.pictures) if p.name not in {"Ada_0002.jpg", "Eve_0001.jpg"}]
    left = pairs.among(kept)
    assert triples(left) == [triples(pairs)[i] for i in (1, 2, 3, 4, 5)]
    assert left.fold.tolist() == [0, 0, 0, 1, 1]
    people = left.people
    assert ((people[:, 0] == people[:, 1]) == left.same).all()


def test_one_kind_of_pair_left_is_refused(tmp_path):
    """When faces are missing until no genuine pair is left, the counts are told."""
    pairs = from_csv(csv_of(tmp_path, "a.png,b.png,1\na.png,c.png,0\n"))
    with pytest.raises(UserError, match="got 0 and 1"):
        pairs.among([tmp_path / "a.png", tmp_path / "c.png"])


def test_scores_are_cosines_in_order(tmp_path):
    """A pair's score is the product of its rows; with two matrices the second is the right one."""
    pairs = from_csv(csv_of(tmp_path, "a.png,b.png,1\na.png,c.png,0\n"))
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    assert pairs.scores(rows) == pytest.approx([0.6, 0.0])
    assert pairs.scores(rows, rows[:, ::-1]) == pytest.approx([0.8, 1.0])
