"""A record may come from anywhere: whatever is wrong in it is refused by name, before any file."""

import hashlib
import json

import pytest

from kiosk.__main__ import main
from kiosk.lab.record import CONFIG_NAME, RANGES_NAME
from kiosk.lab.written import Node
from lab.nets import mobile
from lab.test_rebuild import changed, record_of

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A record of a small net, with factors, corrections and ranges: its folder."""
    import onnx

    folder = tmp_path_factory.mktemp("whole")
    onnx.save(mobile(0), folder / "source.onnx")
    record_of(folder / "source.onnx", folder)
    return folder


@pytest.fixture
def record(whole, tmp_path):
    """A copy of it that a test may spoil."""
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / CONFIG_NAME


def spoil_ranges(record, change):
    """Change the ranges beside a record, and the record's hash of them with it."""
    path = record.parent / RANGES_NAME
    document = json.loads(path.read_text())
    document = change(document) or document
    put_ranges(record, json.dumps(document).encode())


def put_ranges(record, data):
    (record.parent / RANGES_NAME).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    changed(record, lambda d: d["ranges"].update(sha256=sha256))


def refused(record, capsys, *words):
    """Status 2, the words on one line, no trace, nothing made."""
    out = record.parent / "out"
    assert main(["lab", "rebuild", str(record), "--out", str(out)]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("making")]
    assert len(lines) == 1, said.err
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in said.err
    assert len(lines[0]) < 1000
    assert not out.exists()


def first(mapping):
    return next(iter(mapping))


def bound(document, end, value):
    """Set an end of the image's range."""
    document["ranges"]["minmax"]["data"]["image"][end] = value


def array(**rest):
    return {"CLS": "numpy.array", "data": [1.0], "dtype": "float32", **rest}


RANGES = "ranges.minmax.data"
SPOILT_RANGES = {
    "factor NaN": (lambda d: d["factors"]["wide"].__setitem__(3, NAN), "factors.wide[3]", "nan"),
    "factor text": (lambda d: d["factors"]["wide"].__setitem__(3, "1"), "factors.wide[3]", "'1'"),
    "factor true": (lambda d: d["factors"]["wide"].__setitem__(3, True), "factors.wide[3]", "True"),
    "factor 0": (lambda d: d["factors"]["wide"].__setitem__(0, 0), "factors.wide[0]", "above 0"),
    "factor < 0": (lambda d: d["factors"]["wide"].__setitem__(0, -2), "factors.wide[0]", "got -2"),
    "huge": (
        lambda d: d["factors"]["wide"].__setitem__(0, 10**400),
        "factors.wide[0]",
        "an integer of 1329 bits",
    ),
    "few factors": (lambda d: d["factors"]["wide"].pop(), "factors.wide: a list of 16", "of 15"),
    "no factors": (lambda d: d["factors"].update(wide=[]), "factors.wide", "a list of 0"),
    "strange stream": (lambda d: d["factors"].update(none=[1.0]), "factors.none", "has not"),
    "factors a list": (lambda d: d.update(factors=[1]), "factors: keys and values", "a list of 1"),
    "no factors key": (lambda d: d.pop("factors"), "factors", "the key is missing"),
    "move": (
        lambda d: d["corrections"]["qdq-s8"][first(d["corrections"]["qdq-s8"])].append(INF),
        "corrections.qdq-s8.",
        "got inf",
    ),
    "moves too many": (
        lambda d: d["corrections"]["qdq-s8"][first(d["corrections"]["qdq-s8"])].append(0.5),
        "corrections.qdq-s8.",
        "one for each channel",
    ),
    "strange layer": (
        lambda d: d["corrections"]["qdq-s8"].update({"a b\n": [0.5]}),
        "corrections.qdq-s8.'a b\\n'",
        "has not",
    ),
    "no variant": (lambda d: d["corrections"].pop("nhwc-s8"), "corrections.nhwc-s8", "missing"),
    "no ranges": (lambda d: d["ranges"].pop("minmax"), "ranges.minmax", "missing"),
    "ranges text": (lambda d: d["ranges"].update(minmax="x"), "ranges.minmax", "'x'"),
    "method": (
        lambda d: d["ranges"]["minmax"]["calibration_method"].update(value="x.Odd"),
        "ranges.minmax.calibration_method.value",
        "'x.Odd'",
    ),
    "no tensor": (lambda d: d["ranges"]["minmax"]["data"].pop("image"), f"{RANGES}.image", "miss"),
    "strange tensor": (
        lambda d: d["ranges"]["minmax"]["data"].update(odd=d["ranges"]["minmax"]["data"]["image"]),
        f"{RANGES}.odd",
        "has not",
    ),
    "no end": (
        lambda d: d["ranges"]["minmax"]["data"]["image"].pop("lowest"),
        f"{RANGES}.image.lowest",
        "missing",
    ),
    "end NaN": (lambda d: bound(d, "highest", array(data=[NAN])), "image.highest.data[0]", "nan"),
    "end text": (lambda d: bound(d, "highest", "1"), "image.highest", "'1'"),
    "end two": (lambda d: bound(d, "lowest", array(data=[0, 1])), "image.lowest", "a list of 2"),
    "end none": (lambda d: bound(d, "lowest", array(data=[])), "image.lowest.data", "list of 0"),
    "end type": (
        lambda d: bound(d, "lowest", array(dtype="object")),
        "image.lowest.dtype: one of float16, float32",
        "'object'",
    ),
    "upside down": (lambda d: bound(d, "highest", -9.0), "image.highest: at least", "got -9"),
    "odd key": (lambda d: bound(d, "__class__", 1.0), "image.__class__", "another key"),
    "a list": (lambda d: [d], "keys and values expected", "a list of 1"),
}


@pytest.mark.parametrize("name", SPOILT_RANGES)
def test_a_wrong_value_of_the_ranges_is_named(record, capsys, name):
    """With a hash that is right: file, key, what was expected and what came."""
    change, key, got = SPOILT_RANGES[name]

    def apply(document):
        result = change(document)
        return result if isinstance(result, list) and result[0] is document else None

    spoil_ranges(record, apply)
    refused(record, capsys, RANGES_NAME, key, got)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JSON expected"),
        (b"\xff\xfe\x00", "JSON expected"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"factors": ' + b"9" * 5000 + b"}", "JSON expected"),
    ],
)
def test_ranges_that_are_no_json_are_named(record, capsys, data, reason):
    """Nothing, other bytes, a nest, a number of 5,000 digits."""
    put_ranges(record, data)
    refused(record, capsys, f"{RANGES_NAME}: JSON expected", reason)


SPOILT_RECORD = {
    "source text": (lambda d: d.update(source="x"), "source: keys and values", "'x'"),
    "source hash": (lambda d: d["source"].update(sha256="x"), "source.sha256", "'x'"),
    "source hash number": (lambda d: d["source"].update(sha256=NAN), "source.sha256", "nan"),
    "source path": (lambda d: d["source"].update(file="/etc/passwd"), "source.file", "'/etc/"),
    "files": (lambda d: d.update(files=7), "files: a list", "got 7"),
    "a file": (lambda d: d["files"].__setitem__(1, None), "files[1]: keys", "got nothing"),
    "no name": (lambda d: d["files"][1].pop("file"), "files[1].file", "missing"),
    "no hash": (lambda d: d["files"][2].pop("sha256"), "files[2].sha256", "missing"),
    "hash": (lambda d: d["files"][1].update(sha256="0" * 63), "files[1].sha256", "64 hex"),
    "form": (lambda d: d["files"][1].update(form="odd"), "files[1].form: one of qdq", "'odd'"),
    "form list": (lambda d: d["files"][0].update(form=[1]), "files[0].form", "a list of 1"),
    "recipe": (lambda d: d["files"][1].update(recipe=[1]), "files[1].recipe", "array"),
    "weights": (
        lambda d: d["files"][1]["recipe"].update(weights="S4"),
        "files[1].recipe",
        "'S4' - at `$.weights`",
    ),
    "percentile": (
        lambda d: d["files"][1]["recipe"].update(percentile=NAN),
        "files[1].recipe.percentile",
        "nan",
    ),
    "percentile 0": (
        lambda d: d["files"][1]["recipe"].update(percentile=-1.0),
        "files[1].recipe.percentile: more than 0",
        "-1.0",
    ),
    "recipe key": (lambda d: d["files"][1]["recipe"].update(odd=1), "files[1].recipe", "$.odd"),
    "recipe number": (lambda d: d["files"][1]["recipe"].update({3: 4}), "files[1].recipe", ""),
    "exclude": (
        lambda d: d["files"][1]["recipe"].update(exclude=["odd"]),
        "files[1].recipe.exclude[0]: the name of a node",
        "'odd'",
    ),
    "ranges hash": (lambda d: d["ranges"].update(sha256=[]), "ranges.sha256", "a list of 0"),
}


@pytest.mark.parametrize("name", SPOILT_RECORD)
def test_a_wrong_value_of_the_record_is_named(record, capsys, name):
    """The same for the YAML."""
    change, key, got = SPOILT_RECORD[name]
    changed(record, change)
    refused(record, capsys, CONFIG_NAME, key, got)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\0",
        "? [1]\n: 2",
        "at: 2026-99-99",
        "[" * 100_000,
        "&a [*a]",
        "!!python/object/apply:os.getcwd []",
        "n: " + "9" * 5000,
    ],
)
@pytest.mark.parametrize("command", ["rebuild", "validate"])
def test_a_record_that_is_no_yaml_is_named(record, capsys, text, command):
    """Broken, a date that is none, a nest, a list as a key, a list of itself: for both that read
    records."""
    record.write_text(text)
    if command == "rebuild":
        refused(record, capsys, CONFIG_NAME)
        return
    source = str(record.parent / "source.onnx")
    images = record.parent / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"")
    arguments = ["lab", "validate", source, source, "--images", str(images)]
    assert main([*arguments, "--record", str(record)]) == 2
    said = capsys.readouterr().err
    assert CONFIG_NAME in said
    assert "Traceback" not in said


def test_a_file_without_an_end_is_not_read_to_it(tmp_path, capsys, monkeypatch):
    """What has more bytes than any record is refused, not read into memory."""
    monkeypatch.setattr("kiosk.lab.written._MOST_BYTES", 1000)
    (tmp_path / CONFIG_NAME).write_text("a" * 1001)
    refused(tmp_path / CONFIG_NAME, capsys, "at most 1,000 bytes expected, it has more")


def test_a_place_is_short_and_printable(tmp_path):
    """A key of a megabyte, or one that would move the cursor, is told cut and quoted."""
    node = Node(tmp_path, "", {"k" * 10**6: 1, "\x1b[2J": "x" * 10**6})
    for _, each in node.members():
        said = str(each.refuse("a list"))
        assert len(said) < 400
        assert "\x1b" not in said
