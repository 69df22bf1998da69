"""What a build finds of an earlier one in its folder."""

import yaml

from kiosk.lab.earlier import model_names, models_of, set_aside

RECORD, RANGES = "quantization_config.yaml", "quantization_ranges.json"


def lay(folder, *names, record=None):
    """Files that hold their own names, and a record of them."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    if record is not None:
        (folder / RECORD).write_text(record)
    return folder


def listing(*names):
    return yaml.safe_dump({"files": [{"file": name} for name in names]})


def below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_a_new_build_replaces_stays_and_the_rest_goes_with_its_record(tmp_path):
    """One form fewer passes now: it goes, and a copy of nothing lies under the new record."""
    lay(tmp_path, "a-fp32.onnx", "a-int8-qdq-s8.onnx", RANGES, "mine.onnx")
    lay(tmp_path, record=listing("a-fp32.onnx", "a-int8-qdq-s8.onnx"))
    models = models_of(tmp_path, "a", tmp_path / "elsewhere.onnx")
    assert models == ("a-fp32.onnx", "a-int8-qdq-s8.onnx")
    assert set_aside(tmp_path, models, (RECORD, RANGES), (*models, RECORD, RANGES)) is None
    aside = set_aside(tmp_path, models, (RECORD, RANGES), ("a-fp32.onnx", RECORD, RANGES))
    assert aside.files == (RECORD, RANGES, "a-int8-qdq-s8.onnx")
    assert below(tmp_path) == sorted(
        ["a-fp32.onnx", "mine.onnx", *(f"earlier-1/{name}" for name in aside.files)]
    )


def test_another_set_aside_gets_a_folder_of_its_own(tmp_path):
    """What was kept before is not written over; a failing build alone leaves nothing to keep."""
    for number in (1, 2):
        lay(tmp_path, record=listing())
        assert set_aside(tmp_path, (), (RECORD,), ()).folder == tmp_path / f"earlier-{number}"
    assert set_aside(tmp_path, (), (RECORD,), ()) is None


def test_the_source_of_the_new_build_is_no_leftover(tmp_path):
    """A build of what an earlier one made, into the same folder, keeps its source in place."""
    lay(tmp_path, "a-fp32.onnx", record=listing("a-fp32.onnx"))
    assert models_of(tmp_path, "b", tmp_path / "a-fp32.onnx") == ()


def test_a_record_that_is_none_names_nothing(tmp_path):
    """Broken, hostile or no record at all: only the names that this build gives are looked for."""
    lay(tmp_path, "a-fp32.onnx", "other.onnx")
    (tmp_path.parent / "above.onnx").write_text("")
    hostile = ("", "[", "a" * 9, "[" * 5000, listing("../above.onnx", "x\0.onnx"), "files: 3")
    for text in hostile:
        lay(tmp_path, record=text)
        assert models_of(tmp_path, "a", tmp_path / "none") == ("a-fp32.onnx",)


def test_every_name_of_a_build_is_known():
    """Five: FP32 and the four forms."""
    assert len(model_names("a")) == 5
    assert "a-int8-nhwc-u8.onnx" in model_names("a")
