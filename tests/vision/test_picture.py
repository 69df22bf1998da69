"""Files from anywhere: bounded before they are decoded, and named when they are no picture."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import PictureError
from kiosk.vision.picture import MAX_BYTES, decode_picture, load_picture
from kiosk.vision.picture_header import jpeg_end, picture_size

KINDS = [".jpg", ".png", ".webp", ".bmp", ".ppm"]


def encoded(pixels, kind, *options):
    return cv2.imencode(kind, pixels, *options)[1].tobytes()


def photo(width=61, height=37):
    """Not square and not symmetric, smooth enough for JPEG."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.dstack([x, y, x * y]) * 220 + 20).astype(np.uint8)


def png(width, height, colour=2, depth=8):
    """A black PNG of any size in a few kilobytes."""
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_its_header_told_right(kind):
    """Width and height of the header are those of the decoded picture, colours stay in order."""
    data = encoded(photo(), kind)
    assert picture_size(data) == (61, 37)
    pixels = decode_picture(data, "one")
    assert pixels.shape == (37, 61, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - photo()).mean() < 6


@pytest.mark.parametrize(
    "data",
    [
        encoded(photo(), ".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        encoded(photo(), ".webp", [cv2.IMWRITE_WEBP_QUALITY, 60]),
        encoded(photo(), ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        encoded(photo()[..., 0], ".pgm"),
        b"P5 # a comment\n# another\n61 37\n255\n" + bytes(61 * 37),
        encoded(np.dstack([photo(), photo()[..., 0]]), ".webp"),
        encoded(photo().astype(np.uint16) * 257, ".png"),
        encoded(photo(), ".jpg")[:2] + b"\xff\xff" + encoded(photo(), ".jpg")[3:],
    ],
    ids=["progressive", "lossy", "lossless", "grey", "comments", "webp alpha", "16 bit", "fill"],
)
def test_variants_of_headers(data):
    """What the formats allow in a header does not mislead about the size."""
    assert picture_size(data) == (61, 37)
    assert decode_picture(data, "one").shape == (37, 61, 3)


def test_sixteen_bits_keep_their_upper_eight():
    """A deep PGM and PNG come out as the 8-bit picture they were made of."""
    deep = photo().astype(np.uint16) * 256 + 99
    assert (decode_picture(encoded(deep, ".png"), "one") == photo()).all()
    grey = decode_picture(encoded(deep[..., 1], ".pgm"), "one")
    assert (grey == photo()[..., 1:2]).all()


def test_transparency_is_dropped():
    """The colour below shows, however transparent it is."""
    clear = np.dstack([photo(), np.zeros((37, 61), np.uint8)])
    assert (decode_picture(encoded(clear, ".png"), "one") == photo()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_torn_file_is_refused(kind, share):
    """Half a download is told from a picture; no grey filling is taken for a face's background."""
    data = encoded(np.random.default_rng(1).integers(0, 256, (80, 90, 3), dtype=np.uint8), kind)
    with pytest.raises(PictureError, match=r"one.*damaged"):
        decode_picture(data[: int(len(data) * share)], "one")


def test_a_jpeg_with_a_preview_is_torn_by_its_own_end():
    """The preview's end marker in the header does not stand for the picture's."""
    data = encoded(photo(), ".jpg")
    block = b"Exif\x00\x00" + data
    marked = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    assert decode_picture(marked, "one").shape == (37, 61, 3)
    with pytest.raises(PictureError, match="damaged"):
        decode_picture(marked[:-2], "one")


JPEGS = {
    "plain": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("trailer", [b"\x00\x00mp4\xff\xda\x01", b"\xff\xd8\xff\xe1", bytes(3000)])
def test_what_follows_a_jpegs_end_is_not_looked_at(options, trailer):
    """A motion photo has a film behind its end marker, with whatever bytes a film has."""
    data = encoded(photo(200, 150), ".jpg", options)
    assert jpeg_end(data) == len(data)
    assert (decode_picture(data + trailer, "one") == decode_picture(data, "one")).all()


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_jpeg_that_was_closed_again_is_refused(options, share):
    """An end marker after half the data makes no whole picture of it: the rest would be grey."""
    noise = np.random.default_rng(1).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    data = encoded(noise, ".jpg", options)
    cut = data[: int(len(data) * share)].rstrip(b"\xff")
    with pytest.raises(PictureError, match=r"one.*damaged"):
        decode_picture(cut + b"\xff\xd9", "one")


def test_the_libraries_say_nothing_beside_the_error(capfd):
    """What they write of a damaged file is kept: the error's one line is all that is seen."""
    sound = encoded(photo(), ".jpg")
    for data in (
        encoded(photo(), ".png")[:-20],
        sound[:-40] + b"\xff\xd9",
        encoded(photo(), ".bmp")[:99],
    ):
        with pytest.raises(PictureError):
            decode_picture(data, "one")
    os.write(2, b"the journal")
    assert capfd.readouterr() == ("", "the journal")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(40),
        b"%PDF-1.7",
        b"\xff\xd8",
        b"BM",
        b"RIFF....WEBP",
        b"P5\n",
        b"P9 3 3 ",
    ],
)
def test_other_files_are_refused_by_name(data):
    """Empty, another kind, or the first bytes alone."""
    assert picture_size(data) is None
    with pytest.raises(PictureError, match=r"selfie.*picture expected.*JPEG, PNG"):
        decode_picture(data, "selfie")


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (25_000, 2), (0, 5)])
def test_sizes_out_of_bounds_are_refused_unopened(width, height, monkeypatch):
    """A few kilobytes that would unfold to gigabytes never reach the decoder."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    data = png(width, 1)[:20] + struct.pack(">I", height) + bytes(20)
    with pytest.raises(PictureError, match=rf"one.*{width}x{height}.*scale it down"):
        decode_picture(data, "one")


def test_the_largest_pictures_come_at_half_their_size():
    """Above 24 million pixels, whatever the format."""
    assert decode_picture(png(6100, 4000, colour=0), "one").shape == (2000, 3050, 3)
    assert decode_picture(png(6000, 4000, colour=0), "one").shape == (4000, 6000, 3)


def test_a_pipe_or_a_folder_is_refused_at_once(tmp_path):
    """What is no regular file might never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(PictureError, match="no regular file"):
            load_picture(path)


def test_a_file_too_long_is_refused_unread(tmp_path):
    """The bound is on the file, before a byte of it is read."""
    path = tmp_path / "long.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PictureError, match=r"long\.jpg.*bytes"):
        load_picture(path)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.binary(max_size=12), st.integers(0, 60))
def test_any_bytes_are_a_picture_or_a_named_error(kind, noise, at):
    """Damaged headers raise nothing else."""
    data = encoded(photo(9, 7), kind)
    try:
        pixels = decode_picture(data[:at] + noise + data[at + len(noise) :], "one")
    except PictureError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
