"""onnxruntime writes no device id and no usage database, whatever of the kiosk imports it first."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kiosk"


def importers():
    """Every module of the package that imports onnxruntime, wherever in it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                yield ".".join(("kiosk", *path.relative_to(PACKAGE).with_suffix("").parts))
                break


RUN = """
import sys, importlib
importlib.import_module(sys.argv[1])
import onnxruntime
onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("module", list(importers()))
def test_no_way_into_the_runtime_leaves_a_trace(module, tmp_path):
    """In a fresh home, with the module as the first that is imported, nothing is written there."""
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(tmp_path / "plots"),
    }
    model = PACKAGE.parent / "models" / "blazeface-short-fp32.onnx"
    command = [sys.executable, "-c", RUN, module, str(model)]
    subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, check=True, timeout=120
    )
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == []
