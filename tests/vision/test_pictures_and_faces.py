"""From files to embeddings: what is accepted, what is refused, and how well it sees."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.clock import SystemClock
from kiosk.config import Models
from kiosk.errors import PictureError
from kiosk.types import Frame, Stamp, Trust
from kiosk.vision.align import TEMPLATE, align, similarity
from kiosk.vision.picture import decode_picture, load_picture
from kiosk.vision.pipeline import open_pipeline
from kiosk.vision.quality import edge_of, exposure_of, pose_of, sharpness_of, size_of


@pytest.fixture(scope="module")
def eyes():
    """Detector and embedder with the shipped weights."""
    return open_pipeline(Models(), clock=SystemClock(), record=lambda _stage, _ms: None)


@pytest.fixture(scope="module")
def photo(repository):
    return load_picture(repository / "kiosk" / "demo" / "people" / "obama.jpg")


def encoded(pixels, kind=".png"):
    return cv2.imencode(kind, pixels)[1].tobytes()


def test_every_kind_of_picture_gives_the_same_face(eyes, photo):
    """Grey, 16 bit and transparent pictures become three 8-bit channels with the same face."""
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    variants = {
        "alpha": np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]),
        "grey": grey,
        "deep": photo.astype(np.uint16) * 257,
    }
    reference = eyes.faces(photo)[0].embedding
    for name, pixels in variants.items():
        decoded = decode_picture(encoded(pixels), name)
        assert decoded.dtype == np.uint8
        assert decoded.shape == photo.shape
        assert eyes.faces(decoded)[0].embedding.similarity(reference) > 0.8, name


def test_exif_orientation_is_obeyed(eyes, photo):
    """A phone's picture on its side stands upright: orientation 6 is turned by 90 degrees."""
    lying = cv2.rotate(photo, cv2.ROTATE_90_COUNTERCLOCKWISE)
    jpeg = encoded(lying, ".jpg")
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00" + entry + bytes(4)
    block = b"Exif\x00\x00" + tiff
    marked = jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    assert decode_picture(jpeg, "plain").shape == lying.shape
    upright = decode_picture(marked, "marked")
    assert upright.shape == photo.shape
    assert len(eyes.faces(upright)) == 1


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0" + b"\x00" * 40])
def test_what_is_no_picture_is_named(data):
    """Empty, text and a torn JPEG are refused with the file's name."""
    with pytest.raises(PictureError, match="selfie"):
        decode_picture(data, "selfie.jpg")


def test_a_missing_file_is_named(tmp_path):
    """The path is in the error."""
    with pytest.raises(PictureError, match=r"none\.jpg"):
        load_picture(tmp_path / "none.jpg")


def test_one_pixel_shows_nobody(eyes):
    """1x1 is a picture without a face."""
    assert eyes.faces(decode_picture(encoded(np.zeros((1, 1, 3), np.uint8)), "dot")) == []


def test_a_huge_picture(eyes, photo):
    """8000x6000 is taken, at half its size, and its face is found."""
    huge = np.full((6000, 8000, 3), 128, np.uint8)
    big = cv2.resize(photo, (3840, 4800), interpolation=cv2.INTER_LINEAR)
    huge[600:5400, 2000:5840] = big
    decoded = decode_picture(encoded(huge, ".jpg"), "huge")
    assert decoded.shape == (3000, 4000, 3)
    face = eyes.faces(decoded)[0]
    assert face.embedding.similarity(eyes.faces(photo)[0].embedding) > 0.8


def test_forty_faces(eyes, photo):
    """A picture of forty people: each is found, none twice."""
    small = cv2.resize(photo[60:420, 190:490], (160, 192), interpolation=cv2.INTER_AREA)
    crowd = np.tile(small, (5, 8, 1))
    found = eyes.faces(np.ascontiguousarray(crowd))
    assert 38 <= len(found) <= 40
    areas = [face.detection.box[2] * face.detection.box[3] for face in found]
    assert areas == sorted(areas, reverse=True)


def test_no_face_in_noise_and_walls(eyes):
    """Nothing is seen where nobody is."""
    rng = np.random.default_rng(3)
    for pixels in (np.full((720, 1280, 3), 90), rng.integers(0, 256, (480, 640, 3))):
        assert eyes.faces(pixels.astype(np.uint8)) == []


@pytest.mark.parametrize("height", [40, 60, 100])
def test_small_faces_in_a_large_frame(eyes, photo, height):
    """Faces from 40 px on are found in 1280x720, in stills and within a few live frames."""
    scale = height / 212
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((720, 1280, 3), 110, np.uint8)
    frame[300 : 300 + min(small.shape[0], 400), 800 : 800 + small.shape[1]] = small[:400]
    assert len(eyes.faces(frame)) == 1
    live = Frame(frame.copy(), Stamp(0, 0, "b", Trust.SYNCED), "test")
    assert any(eyes.sightings(live) for _ in range(20))


def test_the_weights_reach_their_floor_on_orl(eyes, shared):
    """400 pictures: none missed, AUC >= 0.9999, TAR at FAR 1e-3 >= 0.996; unaligned far below."""
    vectors, plain, names = [], [], []
    for path in sorted((shared / "data" / "orl").glob("*/*.pgm")):
        padded = cv2.copyMakeBorder(load_picture(path), *[40] * 4, cv2.BORDER_REPLICATE)
        pixels = cv2.resize(padded, None, fx=2, fy=2)
        faces = eyes.faces(pixels)
        assert faces, f"{path}: no face found"
        left, top, width, height = (max(0, int(v)) for v in faces[0].detection.box)
        crop = cv2.resize(pixels[top : top + height, left : left + width], (112, 112))
        vectors.append(faces[0].embedding.vector)
        plain.append(eyes.embed_aligned(np.ascontiguousarray(crop[::-1])).vector)
        names.append(path.parent.name)
    auc, tar = figures(np.stack(vectors), np.array(names))
    assert auc >= 0.9999
    assert tar >= 0.996
    _, wrong = figures(np.stack(plain), np.array(names))
    assert wrong < 0.9


def test_live_frames_see_as_well_as_stills(eyes, shared):
    """Faces of 100 px anywhere in 640x480, one frame each: at most 1 % missed, TAR >= 0.99.

    Sparing small live faces the second look would miss 7 % and bring TAR down to 0.91.
    """
    rng = np.random.default_rng(0)
    vectors, names, missed = [], [], 0
    for path in sorted((shared / "data" / "orl").glob("*/*.pgm")):
        padded = cv2.copyMakeBorder(load_picture(path), *[40] * 4, cv2.BORDER_REPLICATE)
        small = cv2.resize(padded, None, fx=100 / 75, fy=100 / 75)
        height, width = small.shape[:2]
        frame = np.full((480, 640, 3), 110, np.uint8)
        left, top = rng.integers(0, 641 - width), rng.integers(0, 481 - height)
        frame[top : top + height, left : left + width] = small
        found = eyes.sightings(Frame(frame, Stamp(0, 0, "b", Trust.SYNCED), "test"))
        if not found:
            missed += 1
            continue
        vectors.append(found[0].embedding.vector)
        names.append(path.parent.name)
    assert missed <= 4
    _, tar = figures(np.stack(vectors), np.array(names))
    assert tar >= 0.99


def figures(matrix, names):
    """AUC (Mann-Whitney) and TAR at FAR 1e-3 over all pairs."""
    upper = np.triu_indices(len(names), 1)
    scores, same = (matrix @ matrix.T)[upper], (names[:, None] == names)[upper]
    impostors = np.sort(scores[~same])
    auc = np.searchsorted(impostors, scores[same]).mean() / len(impostors)
    threshold = impostors[len(impostors) - int(1e-3 * len(impostors)) - 1]
    return auc, (scores[same] > threshold).mean()


@settings(deadline=None, max_examples=100)
@given(st.floats(-3.1, 3.1), st.floats(0.2, 8.0), st.floats(-500, 500), st.floats(-500, 500))
def test_alignment_undoes_every_similarity(angle, scale, dx, dy):
    """Turned, scaled and shifted template points come back onto the template, never mirrored."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE @ turn.T + (dx, dy)).astype(np.float32)
    matrix = similarity(points)
    assert np.abs(points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).max() < 0.01
    assert np.linalg.det(matrix[:, :2]) > 0


def test_landmarks_that_fall_together_are_refused(photo):
    """No direction can be had from one point."""
    with pytest.raises(PictureError, match="landmarks"):
        align(photo, np.full((4, 2), 50.0, np.float32))


def test_blur_dark_and_edge_lower_the_quality(eyes, photo):
    """Each measure falls with its defect and stays within 0..1."""
    face = eyes.faces(photo)[0]
    grey = cv2.cvtColor(face.aligned, cv2.COLOR_BGR2GRAY)
    blurred = [sharpness_of(cv2.GaussianBlur(grey, (0, 0), s)) for s in (0.5, 1.5, 3.0, 6.0)]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] > 0.8
    assert blurred[-1] < 0.2
    dark = [exposure_of((grey * share).astype(np.uint8)) for share in (1.0, 0.4, 0.15, 0.05)]
    assert dark == sorted(dark, reverse=True)
    assert dark[-1] == 0.0
    assert exposure_of(np.full_like(grey, 255)) == 0.0
    assert pose_of(face.detection.landmarks) > 0.9
    profile = face.detection.landmarks.copy()
    profile[2] = profile[0]
    assert pose_of(profile) == 0.0
    assert size_of(face.detection) == 1.0
    height, width = photo.shape[:2]
    assert edge_of(face.detection, width, height) == 1.0
    assert edge_of(face.detection, int(face.detection.box[0] + 50), height) == 0.0


def test_people_of_the_demonstration(eyes, people):
    """The same person is far above strangers."""
    faces = {n: eyes.faces(load_picture(people / f"{n}.jpg"))[0].embedding for n in CAST}
    assert faces["obama"].similarity(faces["obama3"]) > 0.7
    for stranger in ("biden", "collins"):
        assert faces["obama"].similarity(faces[stranger]) < 0.3


CAST = ("obama", "obama3", "biden", "collins")
