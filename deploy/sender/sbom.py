"""The bill of materials of a release for one system, as CycloneDX: packages, models, hashes."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sender.build import file_at, run
from sender.commit import Commit
from sender.refusal import DeployError

_SPEC = "1.6"
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a lock, and the one wheel of it that is shipped."""

    name: str
    version: str
    wheel: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Its line in a lock that allows nothing but this wheel."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def packages_of(lock: Path, wheels: Iterable[Path]) -> list[Package]:
    """The packages of a lock with the wheels that are shipped for them, one for one.

    DeployError for a wheel that the lock does not know, and for a package without its wheel.
    """
    found = {file_at(path).sha256: path.name for path in wheels}
    packages = []
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if pinned := _PINNED.match(line):
            shipped = [digest for digest in _HASH.findall(line) if digest in found]
            if len(shipped) != 1:
                raise DeployError(
                    f"{lock.name}: one wheel of {pinned[1]} {pinned[2]} expected, with a hash of"
                    f" the lock; {len(shipped)} came",
                    "remove .cache/wheelhouse, they are fetched again",
                )
            wheel = found.pop(shipped[0])
            packages.append(Package(pinned[1], pinned[2], wheel, shipped[0]))
    if found:
        raise DeployError(
            f"{lock.name}: only wheels of the lock expected, there is {min(found.values())}",
            "remove .cache/wheelhouse, they are fetched again",
        )
    return packages


def bom_of(tree: Path, commit: Commit, tools: Path, wheel: Path, packages: list[Package]) -> str:
    """The bill of materials of a wheel and its packages, the same text each time."""
    bom = _generated(tools, commit, packages)
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made_of = {"commit": commit.id, "uncommitted changes": "yes" if commit.dirty else "no"}
    root = {
        "type": "application",
        "bom-ref": "kiosk",
        "name": project["name"],
        "version": wheel.name.split("-")[1],
        "licenses": _licences(project["license"]),
        "hashes": _hashes(file_at(wheel).sha256),
        "properties": [
            _file(wheel.name),
            *({"name": name, "value": value} for name, value in made_of.items()),
        ],
    }
    of = {(package.name, package.version): package for package in packages}
    components = [_library(each, of[each["name"], each["version"]]) for each in bom["components"]]
    components += _models(tree)
    bom["metadata"]["component"] = root
    bom["components"] = sorted(components, key=lambda component: str(component["bom-ref"]))
    # Flat: a lock does not say which package asked for which.
    refs = [component["bom-ref"] for component in bom["components"]]
    bom["dependencies"] = [{"ref": "kiosk", "dependsOn": refs}]
    return json.dumps(bom, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _generated(tools: Path, commit: Commit, packages: list[Package]) -> dict[str, Any]:
    """What the locked generator makes of a lock."""
    with tempfile.TemporaryDirectory() as name:
        lock, made = Path(name) / "lock.txt", Path(name) / "bom.json"
        lock.write_text("".join(f"{package.requirement}\n" for package in packages))
        run(
            *(tools / "bin/python", "-m", "cyclonedx_py", "requirements", "--output-reproducible"),
            *("--spec-version", _SPEC, "--output-format", "JSON", "--no-validate"),
            *("--output-file", made, lock),
            env={"SOURCE_DATE_EPOCH": str(commit.time)},
        )
        bom: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
    return bom


def _library(generated: dict[str, Any], package: Package) -> dict[str, Any]:
    """A package's component; the generator's place of download is one of many, and left out."""
    kept = {key: generated[key] for key in ("type", "name", "version", "purl")}
    digests = [hash_ for ref in generated["externalReferences"] for hash_ in ref["hashes"]]
    return {
        **kept,
        "bom-ref": generated["purl"],
        "hashes": digests,
        "properties": [_file(package.wheel)],
    }


def _models(tree: Path) -> list[dict[str, Any]]:
    """The model files that ride in the wheel; DeployError for one that is not the manifest's."""
    manifest = tomllib.loads((tree / "models/manifest.toml").read_text(encoding="utf-8"))
    components = []
    for model in manifest["model"]:
        if not model.get("shipped", False):
            continue
        digest = file_at(tree / "models" / model["file"]).sha256
        if digest != model["sha256"]:
            raise DeployError(
                f"{model['file']}: SHA-256 {model['sha256']} expected, {digest} came",
                "put the file or models/manifest.toml right",
            )
        components.append(
            {
                "type": "machine-learning-model",
                "bom-ref": f"model:{model['id']}",
                "name": model["id"],
                "description": f"{model['purpose']}; from {model['source']}",
                "licenses": _licences(model["licence"]),
                "hashes": _hashes(digest),
                "properties": [_file(f"kiosk/_models/{model['file']}")],
            }
        )
    return components


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _licences(spdx: str) -> list[dict[str, dict[str, str]]]:
    return [{"license": {"id": spdx}}]


def _file(name: str) -> dict[str, str]:
    """Where the file of a component is: in the wheelhouse, the release, or the wheel."""
    return {"name": "file", "value": name}
