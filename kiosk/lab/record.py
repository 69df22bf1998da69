"""`quantization_config.yaml` and the ranges beside it: all that made a file, and remakes it.

The keys of the guide come first (model, quantization, calibration, validation, performance), ours
after them. No picture and no embedding is in either file.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from kiosk.errors import ModelError, UserError
from kiosk.lab.assemble import Form, Plan
from kiosk.lab.quantise import recipe_from, recipe_ranges_name
from kiosk.lab.written import Node, json_in, read_bytes, read_yaml

CONFIG_NAME = "quantization_config.yaml"
RANGES_NAME = "quantization_ranges.json"
_FORMS: tuple[Form, ...] = ("qdq", "nhwc")
_METHODS = tuple(f"CalibrationMethod.{name}" for name in ("MinMax", "Entropy", "Percentile"))
_FLOAT_TYPES = ("float16", "float32")
_TYPES = (*_FLOAT_TYPES, "float64", "int32", "int64")
_TAKEN = {"avg", "std", "lowest", "highest", "hist", "hist_edges", "bins"}
_COUNTS = {"hist", "bins"}
_LIBRARIES = ("onnx", "onnxruntime", "numpy", "face-kiosk")


@dataclass(frozen=True, slots=True)
class Remake:
    """One file of a build: an FP32 form by its name, or a plan of quantisation."""

    file: str
    sha256: str
    float_form: str | None
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Record:
    """What `kiosk lab rebuild` needs: the source by hash, the files, factors and ranges.

    `listed` and `sidecar` are the record and the ranges beside it as they were read and checked.
    """

    source: str
    source_sha256: str
    remakes: tuple[Remake, ...]
    factors: dict[str, list[float]]
    listed: Node
    sidecar: Node

    def ranges_node(self, plan: Plan) -> Node:
        """The plan's ranges; UserError when there are none of that name."""
        return self.sidecar["ranges"][recipe_ranges_name(plan.recipe)]

    def write_ranges(self, plan: Plan, folder: Path) -> Path:
        """The plan's ranges as the file that ONNX Runtime's quantiser reads."""
        path = folder / f"{recipe_ranges_name(plan.recipe)}.json"
        path.write_text(json.dumps(self.ranges_node(plan).value), encoding="utf-8")
        return path


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    found = {name: metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found}


def ranges_document(
    factors: dict[str, list[float]], plans: tuple[Plan, ...], ranges: Mapping[str, bytes]
) -> bytes:
    """The JSON beside the record: factors, corrections of each variant, calibrated ranges."""
    document = {
        "factors": factors,
        "corrections": {plan.variant: plan.corrections for plan in plans},
        "ranges": {name: json.loads(data) for name, data in ranges.items()},
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def as_yaml(document: dict[str, Any]) -> bytes:
    """The record's bytes, keys in the order given."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text.encode("utf-8")


def read_record(path: Path) -> Record:
    """Read a record and the ranges beside it.

    Raises UserError, naming file and key, for what is missing, malformed, or of another hash.
    """
    listed = read_yaml(path)
    source, files, beside = listed["source"], listed["files"].items(), listed["ranges"]
    path_beside = path.parent / beside["file"].file_name()
    data = read_bytes(path_beside)
    digest = hashlib.sha256(data).hexdigest()
    if digest != beside["sha256"].sha256():
        raise UserError(
            f"{path_beside}: SHA-256 {beside['sha256'].value}, by ranges.sha256 of {path.name},"
            f" expected, got {digest}",
            hint="take both files of one build, unchanged",
        )
    sidecar = json_in(path_beside, data)
    remakes = tuple(_remake(item, sidecar["corrections"]) for item in files)
    _check_names(listed["files"], files)
    for _, ranges in sidecar["ranges"].members():
        _check_ranges(ranges)
    return Record(
        source["file"].file_name(),
        source["sha256"].sha256(),
        remakes,
        {name: _factors(each) for name, each in sidecar["factors"].members()},
        listed,
        sidecar,
    )


def _check_names(files: Node, items: list[Node]) -> None:
    """A record's models: one at least, each of its own name, none in place of anything else."""
    if not items:
        raise files.refuse("files expected, the name and SHA-256 of each model")
    seen: set[str] = set()
    for item in items:
        name = item["file"].file_name()
        if not name.endswith(".onnx"):
            raise item["file"].refuse("the name of an .onnx file")
        if name in seen:
            raise item["file"].refuse("different names of files", f"{name!r} twice")
        seen.add(name)


def _remake(item: Node, corrections: Node) -> Remake:
    form, file, sha256 = item["form"], item["file"].file_name(), item["sha256"].sha256()
    if "recipe" not in item:
        return Remake(file, sha256, form.text(), None)
    written: Form = "nhwc" if form.one_of(_FORMS) == "nhwc" else "qdq"
    try:
        recipe = recipe_from(item["recipe"].value)
    except ModelError as error:
        raise item["recipe"].refuse("a recipe of quantisation", _after(error.message)) from error
    if not 0.0 < item["recipe"]["percentile"].number() <= 100.0:
        raise item["recipe"]["percentile"].refuse("more than 0 to 100")
    plan = Plan(written, recipe, {})
    moves = {name: each.numbers() for name, each in corrections[plan.variant].members()}
    return Remake(file, sha256, None, Plan(written, recipe, moves))


def _after(message: str) -> str:
    """What msgspec says, without the words that stand before it."""
    return message.partition("got: ")[2] or message.partition("expected, ")[2]


def _factors(factors: Node) -> list[float]:
    for each in factors.items():
        if each.number() <= 0.0:
            raise each.refuse("a number above 0")
    return factors.numbers()


def _check_ranges(ranges: Node) -> None:
    """The form that ONNX Runtime's quantiser reads, with a least and a greatest value for each."""
    ranges["CLS"].one_of(("TensorsData",))
    method = ranges["calibration_method"]
    method["CLS"].one_of(("CalibrationMethod",))
    method["value"].one_of(_METHODS)
    for _, entry in ranges["data"].members():
        lowest, highest = _bound(entry["lowest"]), _bound(entry["highest"])
        if highest < lowest:
            raise entry["highest"].refuse(f"at least the lowest, {lowest:g}", f"{highest:g}")
        for name, each in entry.members():
            if name == "CLS":
                each.one_of(("TensorData",))
            elif name not in _TAKEN:
                raise each.refuse(f"one of {', '.join(sorted(_TAKEN))}", "another key")
            else:
                _values(each, _TYPES if name in _COUNTS else _FLOAT_TYPES)


def _bound(end: Node) -> float:
    values = _values(end, _FLOAT_TYPES)
    if len(values) != 1:
        raise end.refuse("one number for the whole tensor", f"a list of {len(values)}")
    return values[0]


def _values(node: Node, types: tuple[str, ...]) -> list[float]:
    """A number, or an array as it is written down: its values and their type."""
    if not isinstance(node.value, dict):
        return [node.number()]
    node["CLS"].one_of(("numpy.array",))
    node["dtype"].one_of(types)
    data = node["data"]
    return data.numbers() if isinstance(data.value, list) else [data.number()]
