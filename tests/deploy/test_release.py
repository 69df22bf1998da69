"""What `make release` publishes: complete, hashed, and the same bytes wherever it is built."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from deploy.site import HANG_S, REPOSITORY, Checkout

from .clones import Clone, cloned, shorten

SYSTEMS = {"bookworm": "cp311", "trixie": "cp313"}
LICENCES = ("LICENSE", "NOTICE", "THIRD_PARTY_NOTICES.md")
# One package for any machine, one for each Python and processor: small, and yet a wheelhouse.
LOCKED = ("certifi", "msgspec")
VALIDATE = """
import json, sys, cyclonedx.schema, cyclonedx.validation.json as validation
validator = validation.JsonStrictValidator(cyclonedx.schema.SchemaVersion.V1_6)
told = [validator.validate_str(text) for text in json.load(sys.stdin)]
json.dump([each and str(each) for each in told], sys.stdout)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """This very tree with short locks and without the cache's link, tagged v1.2.3."""
    checkout = Checkout(tmp_path_factory.mktemp("source") / "kiosk")
    for codename in SYSTEMS:
        shorten(checkout.folder / f"deploy/locks/pi-{codename}.txt", LOCKED)
    (checkout.folder / ".cache").unlink()
    checkout.commit("short locks")
    checkout.git("tag", "v1.2.3")
    return checkout


@pytest.fixture(scope="module")
def clones(tmp_path_factory, source):
    """Two clones that each made the release, in different surroundings, one over a damaged one."""
    folder = tmp_path_factory.mktemp("clones")
    one = Clone(cloned(source.folder, folder / "one"), TZ="Pacific/Auckland")
    other = Clone(cloned(source.folder, folder / "and another"), TZ="America/Lima", LC_ALL="C")
    there = other.folder / "dist/1.2.3"
    there.mkdir(parents=True)
    for name in ("SHA256SUMS", "board.pyz", "stray"):
        (there / name).write_bytes(b"of another time")
    (there.parent / ".half-killed/new").mkdir(parents=True)
    for clone, umask in ((one, 0o077), (other, 0o002)):
        with clone.begin(umask=umask) as process:
            clone.said, _ = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, clone.said
    return one, other


@pytest.fixture(scope="module")
def release(clones):
    return clones[0].made()


@pytest.fixture(scope="module")
def wheel(release):
    return release / "face_kiosk-1.2.3-py3-none-any.whl"


@pytest.fixture(scope="module")
def tools(source):
    """The locked build tools, which a release has made by now."""
    lock = (source.folder / "deploy/locks/build.txt").read_bytes()
    digest = hashlib.sha256(lock).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return REPOSITORY / ".cache/tools" / f"{digest}-py{version}/bin/python"


def wheelhouse(release, codename):
    return zipfile.ZipFile(release / f"wheelhouse-{codename}-aarch64.zip")


def bom(release, codename):
    return json.loads((release / f"sbom-{codename}-aarch64.cdx.json").read_text(encoding="utf-8"))


def file_of(component):
    return {each["name"]: each["value"] for each in component["properties"]}["file"]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def checked(folder):
    """`sha256sum -c`, as whoever downloads a release says it."""
    command = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_tag_names_the_release_and_nothing_is_missing(release):
    """v1.2.3 makes dist/1.2.3 with wheel, sdist, board program, wheelhouses, SBOMs and sums."""
    assert release.name == "1.2.3"
    systems = [f"{codename}-aarch64" for codename in SYSTEMS]
    assert {path.name for path in release.iterdir()} == {
        "face_kiosk-1.2.3-py3-none-any.whl",
        "face_kiosk-1.2.3.tar.gz",
        "board.pyz",
        *(f"wheelhouse-{system}.zip" for system in systems),
        *(f"sbom-{system}.cdx.json" for system in systems),
        "SHA256SUMS",
    }
    assert not list(release.parent.glob(".*"))


def test_two_clones_make_the_same_bytes(clones):
    """Another folder, time, time zone, language and umask change no byte."""
    one, other = ((clone.made() / "SHA256SUMS").read_text() for clone in clones)
    assert one == other
    for clone in clones:
        done = checked(clone.made())
        assert done.returncode == 0, done.stderr


def test_a_changed_byte_is_noticed(release, tmp_path):
    """`sha256sum -c` names each file that differs by a bit, and the others are all listed."""
    folder = shutil.copytree(release, tmp_path / "copy")
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    for name in names:
        path = folder / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    done = checked(folder)
    assert done.returncode != 0
    assert done.stdout.splitlines() == [f"{name}: FAILED" for name in names]


def test_the_wheelhouse_is_what_the_lock_says_for_that_machine(release, source):
    """A lock's packages for the system's own Python on aarch64, and the lock; nothing varies."""
    for codename, python in SYSTEMS.items():
        with wheelhouse(release, codename) as archive:
            infos = archive.infolist()
            lock = archive.read(f"pi-{codename}.txt")
        names = [info.filename for info in infos]
        assert names == sorted(names)
        assert len(names) == len(LOCKED) + 1
        assert lock == (source.folder / f"deploy/locks/pi-{codename}.txt").read_bytes()
        (msgspec,) = [name for name in names if name.startswith("msgspec")]
        assert python in msgspec
        assert "aarch64" in msgspec
        assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in infos} == {0o100644}


def test_the_board_program_runs(release):
    """board.pyz is a program for a bare Python."""
    command = [sys.executable, "-I", release / "board.pyz", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert "Traceback" not in done.stderr
    with zipfile.ZipFile(release / "board.pyz") as archive:
        own = {path.name for path in (REPOSITORY / "deploy/board").glob("*.py")}
        assert {Path(name).name for name in archive.namelist()} == own


def test_the_sboms_are_valid(release, tools):
    """CycloneDX's own validator, in its strict mode, has nothing to say, but would have."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(release.glob("sbom-*"))]
    texts.append(texts[0].replace('"library"', '"libary"'))
    command = [tools, "-c", VALIDATE]
    given = json.dumps(texts)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    *valid, broken = json.loads(done.stdout)
    assert valid == [None] * len(SYSTEMS)
    assert "libary" in broken


@pytest.mark.parametrize("codename", SYSTEMS)
def test_the_sbom_names_all_that_is_shipped_and_nothing_else(release, wheel, source, codename):
    """Each hash is that of a shipped file; each wheel and each model of the release is there."""
    told = bom(release, codename)
    root = told["metadata"]["component"]
    shipped = {wheel.name: sha256(wheel.read_bytes())}
    with wheelhouse(release, codename) as archive:
        names = [name for name in archive.namelist() if name.endswith(".whl")]
        shipped |= {name: sha256(archive.read(name)) for name in names}
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".onnx")]
        assert names
        shipped |= {name: sha256(archive.read(name)) for name in names}
    everything = [root, *told["components"]]
    hashes = {
        file_of(component): [each["content"] for each in component["hashes"]]
        for component in everything
    }
    assert hashes == {name: [digest] for name, digest in shipped.items()}
    assert len(re.findall(r'"alg"', json.dumps(told))) == len(shipped)
    assert {each["alg"] for component in everything for each in component["hashes"]} == {"SHA-256"}


def test_the_sbom_says_what_each_thing_is(release, source):
    """Name, version and purl of packages, licences of models, version and commit of the whole."""
    told = bom(release, "trixie")
    root = told["metadata"]["component"]
    assert (root["name"], root["version"]) == ("face-kiosk", "1.2.3")
    head = source.git("rev-parse", "HEAD").stdout.decode().strip()
    facts = {each["name"]: each["value"] for each in root["properties"]}
    assert (facts["commit"], facts["uncommitted changes"]) == (head, "no")
    packages = [each for each in told["components"] if each["type"] == "library"]
    assert tuple(each["name"] for each in packages) == LOCKED
    for each in packages:
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        assert file_of(each).startswith(f"{each['name']}-{each['version']}-")
    models = [each for each in told["components"] if each["type"] == "machine-learning-model"]
    assert models
    assert {each["licenses"][0]["license"]["id"] for each in models} == {"Apache-2.0"}
    refs = {each["bom-ref"] for each in told["components"]}
    assert told["dependencies"] == [{"ref": root["bom-ref"], "dependsOn": sorted(refs)}]


def test_the_sdist_builds_the_same_wheel(release, wheel, tools, tmp_path):
    """Away from git, with the tools of the lock and the time of its files: the wheel's bytes."""
    with tarfile.open(release / "face_kiosk-1.2.3.tar.gz") as archive:
        times = {member.mtime for member in archive}
        archive.extractall(tmp_path, filter="data")
    (time,) = times
    command = [tools, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "built"]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(int(time))}
    at = tmp_path / "face_kiosk-1.2.3"
    subprocess.run(command, cwd=at, env=environ, check=True, capture_output=True)
    (built,) = (tmp_path / "built").iterdir()
    assert built.name == wheel.name
    assert built.read_bytes() == wheel.read_bytes()


def test_the_sdist_is_the_commit(release, source):
    """What git knows of the commit, and the metadata that a version away from git comes from."""
    with tarfile.open(release / "face_kiosk-1.2.3.tar.gz") as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    known = source.git("ls-files", "-z").stdout.decode().split("\0")
    assert names == {"PKG-INFO", *filter(None, known)}


def test_the_licences_come_along(release, wheel):
    """Licence, notice and the notices for what is shipped besides are in wheel and sdist."""
    with zipfile.ZipFile(wheel) as packed, tarfile.open(release / "face_kiosk-1.2.3.tar.gz") as tar:
        for name in LICENCES:
            wanted = (REPOSITORY / name).read_bytes()
            assert packed.read(f"face_kiosk-1.2.3.dist-info/licenses/{name}") == wanted
            assert tar.extractfile(f"face_kiosk-1.2.3/{name}").read() == wanted


def test_a_checkout_without_tags_builds_with_or_without_changes(tmp_path, source):
    """A development version that names the commit; changes are refused unless they are wanted."""
    clone = Clone(cloned(source.folder, tmp_path / "untagged", "--no-tags"))
    (clone.folder / "docs/added.md").write_text("not committed\n")
    status, said = clone.release()
    assert status != 0
    assert "docs/added.md" in said
    assert "DIRTY=1" in said
    assert not (clone.folder / "dist").exists()
    status, said = clone.release("DIRTY=1", "OUT=elsewhere")
    assert status == 0, said
    assert "do not publish it" in said
    (folder,) = (clone.folder / "elsewhere").iterdir()
    assert re.fullmatch(r"0\.1\.\d+\.dev\d+\+g[0-9a-f]{7,}", folder.name)
    root = bom(folder, "trixie")["metadata"]["component"]
    facts = {each["name"]: each["value"] for each in root["properties"]}
    assert facts["uncommitted changes"] == "yes"
    assert facts["commit"].startswith(folder.name.partition("+g")[2])


def test_other_bytes_are_replaced_whole(clones):
    """What lay under the version is gone, with strays and what a killed one left; that is said."""
    assert "there already with other bytes, replaced" in clones[1].said
    folder = clones[1].made()
    assert not (folder / "stray").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_same_bytes_are_left(clones):
    """A release that is there is not touched by another build of it."""
    clone = clones[1]
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(clone.made().iterdir())]
    status, said = clone.release()
    assert status == 0, said
    assert "left as it is" in said
    after = [(path.name, path.stat().st_mtime_ns) for path in sorted(clone.made().iterdir())]
    assert after == before


def test_one_that_is_killed_leaves_what_was_there(clones):
    """No half release is ever found under a version."""
    clone = clones[1]
    with clone.begin() as process:
        assert "building" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)
    assert checked(clone.made("[0-9]*")).returncode == 0


def test_a_package_that_was_damaged_in_the_cache_is_not_shipped(clones, tmp_path, source, tools):
    """A wheel without a hash of the lock is refused, with what to do."""
    cache = tmp_path / "cache"
    lock = (source.folder / "deploy/locks/pi-trixie.txt").read_bytes()
    for path in (REPOSITORY / ".cache/wheelhouse").glob(f"*-aarch64-{sha256(lock)[:12]}"):
        target = shutil.copytree(path, cache / "wheelhouse" / path.name)
        (wheel,) = target.glob("msgspec-*")
        wheel.write_bytes(wheel.read_bytes()[:-1])
    (cache / "tools").symlink_to(tools.parent.parent.parent)
    clone = Clone(cloned(source.folder, tmp_path / "clone"), cache)
    status, said = clone.release()
    assert status != 0
    assert "one wheel of msgspec" in said
    assert "remove .cache/wheelhouse" in said
    assert not list((clone.folder / "dist").iterdir())


def test_the_documentation_of_a_release_is_true(release):
    """docs/operations.md names every kind of file that is made, and none that is not."""
    page = (REPOSITORY / "docs/operations.md").read_text(encoding="utf-8")
    section = page.partition("## A release\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(?:sha256sum -c )?([A-Za-z*-]+[A-Za-z0-9*.-]*)`", section))
    patterns = {name for name in named if re.search(r"\.[a-z]|SUMS", name)}
    assert patterns == {
        "board.pyz",
        "wheelhouse-*-aarch64.zip",
        "sbom-*-aarch64.cdx.json",
        "SHA256SUMS",
    }
    for kind, pattern in (("wheel", "*.whl"), ("sdist", "*.tar.gz")):
        assert kind in section
        patterns.add(pattern)
    for pattern in patterns:
        assert list(release.glob(pattern)), pattern
    left = [path for path in release.iterdir() if not any(map(path.match, patterns))]
    assert not left
    for word in ("make release", "DIRTY=1", "OUT=", *SYSTEMS):
        assert word in section
