"""The walls of the house: who may import what, and how large a thing may grow."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kiosk"
ROOMS = ("capture", "vision", "decide", "outbox", "uplink", "feedback")
FLOOR = {"types", "errors"}
HALL = {
    "wire",
    "vault",
    "clock",
    "config",
    "tables",
    "files",
    "address",
    "identity",
    "spare",
    "joint",
}
WORKSHOP = {"lab", "server", "demo"}

# library -> (files that may import it, reason)
OWNERS = {
    "onnxruntime": (("vision/session.py", "lab/"), "models are verified before they are loaded"),
    "sqlite3": (
        ("outbox/database.py", "outbox/faults.py", "server/store.py"),
        "one connection, one owner; beside it its errors are named",
    ),
    "urllib3": (("uplink/",), "one place opens sockets to the server"),
    "requests": (("uplink/post.py",), "one place opens sockets to the server"),
    "picamera2": (("capture/picamera.py",), "optional, and only on a Pi"),
    "systemd": (("journal.py",), "optional, and only on a Pi"),
    "cryptography": (("vault.py",), "one place seals and opens"),
    "rfc8785": (("wire/",), "the canonical form belongs to the wire"),
    "onnx": (("lab/",), "the daemon never loads the workshop"),
    "tflite": (("lab/",), "the daemon never loads the workshop"),
    "sklearn": (("lab/",), "the daemon never loads the workshop"),
    "yaml": (("lab/",), "the daemon never loads the workshop"),
    "fastapi": (("server/",), "the daemon never loads the server"),
    "uvicorn": (("server/",), "the daemon never loads the server"),
    "time": (("clock.py",), "time is an argument"),
}


def sources():
    """Every module of the package by its path below it."""
    return {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path):
    """Every module name imported anywhere in a file, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path):
    """The kiosk modules a file imports, as the first name below the package."""
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith("kiosk.")}
    return {name for name in names if not name.startswith("__")}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_know_each_other(room):
    """A room sees the floor, the hall and itself, nothing else."""
    for name, path in sources().items():
        if name.startswith(f"{room}/"):
            strangers = own(path) - FLOOR - HALL - {room}
            assert not strangers, f"{name} imports {strangers}"


def test_floor_stands_on_nothing():
    """types and errors import each other, the standard library and numpy."""
    for name in ("types.py", "errors.py"):
        assert own(PACKAGE / name) <= FLOOR


def test_hall_sees_the_floor_only():
    """wire, vault, clock and config see the floor and each other."""
    for name, path in sources().items():
        if name.split("/")[0].removesuffix(".py") in HALL:
            assert own(path) <= FLOOR | HALL, name


def test_the_daemon_never_imports_the_workshop():
    """lab, server and demo are reached by their own commands, never by the daemon."""
    for name, path in sources().items():
        storey = name.split("/")[0].removesuffix(".py")
        entrance = name in {"__main__.py", "commands/demo.py"} or name.startswith("commands/lab/")
        if storey in WORKSHOP or entrance:
            continue
        assert not own(path) & WORKSHOP, name


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_foreign_library_lives_in_one_place(library):
    """Each library has its owner; an entry that nobody uses any more is stale and fails."""
    owners, reason = OWNERS[library]
    users = {
        name
        for name, path in sources().items()
        if any(n == library or n.startswith(f"{library}.") for n in imports_of(path))
    }
    outside = {name for name in users if not name.startswith(owners)}
    assert not outside, f"{library} belongs to {owners} ({reason}), not to {outside}"
    assert users, f"nobody imports {library} any more: take it out of the table"


def test_a_planted_import_is_seen(tmp_path):
    """The walk finds an import inside a function: the table above can fail."""
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from kiosk.lab import convert\n    return convert\n")
    assert own(planted) == {"lab"}


def test_every_test_states_its_rule():
    """A test's docstring is the rule it protects."""
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_functions_stay_small():
    """No function has more than 60 lines without its docstring, no file more than 350."""
    for name, path in sources().items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                length -= len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert length <= 60, f"{name}: {node.name} has {length} lines"


def test_nobody_is_sent_to_a_package_that_is_not_published():
    """Extras are installed from a checkout: `.[server]`, never by the project's name."""
    documents = [*PACKAGE.parent.glob("*.md"), *PACKAGE.parent.glob("docs/*.md")]
    for path in [*sources().values(), *documents]:
        assert "face-kiosk[" not in path.read_text(encoding="utf-8"), path
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    for said in (". .venv/bin/activate", "pip install '.[server]'", "/employees/anna/faces"):
        assert said in readme


def test_the_daemon_starts_with_its_own_dependencies_alone():
    """Importing the daemon loads nothing of the workshop and no optional library."""
    assert importlib.util.find_spec("fastapi") is not None
    code = (
        "import sys, kiosk.app, kiosk.__main__;"
        "bad = {'fastapi','uvicorn','onnx','tflite','sklearn','matplotlib','picamera2','jinja2'};"
        "print(sorted(bad & {m.split('.')[0] for m in sys.modules}));"
        "print(sorted(m for m in sys.modules if m.startswith(('kiosk.lab', 'kiosk.server'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
