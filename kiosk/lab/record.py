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

from kiosk.errors import UserError
from kiosk.lab.assemble import Form, Plan
from kiosk.lab.bias import Corrections
from kiosk.lab.quantise import recipe_from, recipe_ranges_name

CONFIG_NAME = "quantization_config.yaml"
RANGES_NAME = "quantization_ranges.json"
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
    """What `kiosk lab rebuild` needs: the source by hash, the files, factors and ranges."""

    source: str
    source_sha256: str
    remakes: tuple[Remake, ...]
    factors: dict[str, list[float]]
    ranges: dict[str, Any]

    def write_ranges(self, plan: Plan, folder: Path) -> Path:
        """The plan's ranges as the file that ONNX Runtime's quantiser reads."""
        name = recipe_ranges_name(plan.recipe)
        if name not in self.ranges:
            raise UserError(f"{RANGES_NAME}: ranges called {name} expected, it has none")
        path = folder / f"{name}.json"
        path.write_text(json.dumps(self.ranges[name]), encoding="utf-8")
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
    document = _mapping(path, _load_yaml(path))
    try:
        source, listed, beside = document["source"], document["files"], document["ranges"]
        sidecar = path.parent / _file_name(path, beside["file"])
        data = _read(sidecar)
        digest = hashlib.sha256(data).hexdigest()
        if digest != beside["sha256"]:
            raise UserError(f"{sidecar}: SHA-256 {beside['sha256']} expected, got {digest}")
        made = json.loads(data)
        remakes = tuple(_remake(path, item, made["corrections"]) for item in listed)
        _check_names(path, [remake.file for remake in remakes])
        return Record(
            str(source["file"]), str(source["sha256"]), remakes, made["factors"], made["ranges"]
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: a record of `kiosk lab build` expected, {type(error).__name__}: {error}",
            hint="take the file that the build wrote, unchanged",
        ) from error


def _file_name(path: Path, name: Any) -> str:
    """The name of a file in a folder: a record from elsewhere reaches nothing else."""
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or name in {"", ".", ".."}
        or Path(name).name != name
    ):
        raise UserError(f"{path}: the name of a file expected, without a folder, got {name!r}")
    return name


def _check_names(path: Path, names: list[str]) -> None:
    """A record's models: one at least, each of its own name, none in place of anything else."""
    if not names:
        raise UserError(f"{path}: files expected, the name and SHA-256 of each model; it has none")
    for name in names:
        if not name.endswith(".onnx"):
            raise UserError(f"{path}: the name of an .onnx file expected, got {name!r}")
        if names.count(name) > 1:
            raise UserError(f"{path}: different names of files expected, got {name!r} twice")


def _remake(path: Path, item: dict[str, Any], corrections: dict[str, Corrections]) -> Remake:
    form, file = item["form"], _file_name(path, item["file"])
    if "recipe" not in item:
        return Remake(file, str(item["sha256"]), str(form), None)
    written: Form = "nhwc" if form == "nhwc" else "qdq"
    recipe = recipe_from(item["recipe"])
    plan = Plan(written, recipe, {})
    plan = Plan(written, recipe, corrections[plan.variant])
    return Remake(file, str(item["sha256"]), None, plan)


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: a record in YAML expected, {reason}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: expected a file to read, {error.strerror}") from error


def _mapping(path: Path, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UserError(f"{path}: a record with keys expected, got {type(document).__name__}")
    return document
