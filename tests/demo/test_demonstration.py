"""`kiosk demo` shows the main job, and fails when a part of it does."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from kiosk.config import load
from kiosk.demo.stage import ended_like_by_hand, write_config

LIMIT_S = 300


def demo(*arguments, patch=None, tmp_path=None):
    """Run the demonstration as a user would; `patch` is code run in each of its processes."""
    environment = dict(os.environ)
    if patch:
        (tmp_path / "sitecustomize.py").write_text(patch)
        environment["PYTHONPATH"] = str(tmp_path)
    return subprocess.run(
        [sys.executable, "-m", "kiosk", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment,
    )


def rows(output):
    """The summary's lines of visits, by who walked up."""
    lines = [line.split() for line in output.splitlines() if "  " in line]
    return {words[1]: " ".join(words) for words in lines if words[1:2] and words[1] in CAST}


CAST = ("obama", "collins", "biden")


def test_everybody_gets_what_they_are_due():
    """Obama and Collins are recorded by name, the stranger is not, and honesty is kept."""
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    summary = rows(done.stdout)
    assert "recorded obama" in summary["obama"]
    assert summary["obama"].endswith("ok")
    assert "recorded collins" in summary["collins"]
    assert summary["collins"].endswith("same photograph")
    assert "not recognised" in summary["biden"]
    assert "a photograph of a person is not told from the person" in done.stdout
    for stage in ("detect", "align", "embed", "match", "commit"):
        assert f"\n{stage} " in done.stdout


def test_a_wrong_alignment_fails():
    """Eyes and mouth swapped in the template: the demonstration must not pass."""
    pytest.importorskip("kiosk.vision.align")
    patch = "import kiosk.vision.align as a\na.TEMPLATE = a.TEMPLATE[[2, 3, 0, 1]].copy()\n"
    with_patch(patch)


def test_a_constant_embedder_fails():
    """A model that sees the same in everybody: the demonstration must not pass."""
    patch = (
        "import numpy as np\nimport kiosk.vision.embed as e\nfrom kiosk.types import Embedding\n"
        "e.Embedder.embed = lambda self, crop: Embedding.of(np.arange(1.0, 193.0), self.space)\n"
    )
    # The very file: the choice among several would hold it against golden faces, and refuse it.
    with_patch(patch, "--model", "mobilefacenet-fp32")


def with_patch(patch, *arguments):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = demo(*arguments, patch=patch, tmp_path=Path(folder))
    assert done.returncode == 1, done.stdout
    assert "kiosk demo:" in done.stderr


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mobilefacenet-prelu-fp32", ("mobilefacenet-prelu-fp32", "exact")),
        (None, ("mobilefacenet-fp32", "auto")),
    ],
)
def test_model_means_the_very_file(tmp_path, model, expected):
    """--model ID is that file for the daemon too; without it the daemon selects."""
    models = load(write_config(tmp_path, "http://127.0.0.1:9", model, [])).models
    assert (models.embedder, models.prefer) == expected


@pytest.fixture
def short():
    """A folder with a short name: the address of a unix socket ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="k") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "kiosk.ready"),
        (signal.SIGTERM, "kiosk.ready"),
        (signal.SIGTERM, "Both go on running"),
    ],
)
def test_a_signal_leaves_nothing_behind(short, number, moment):
    """SIGTERM is what Ctrl-C is, at any moment: no process and no folder stays."""
    command = [sys.executable, "-m", "kiosk", "demo", "--stay"]
    environment = {**os.environ, "TMPDIR": str(short), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        hung = threading.Timer(LIMIT_S, process.kill)
        hung.start()
        children = []
        try:
            assert any(moment in line for line in process.stdout)
            children = psutil.Process(process.pid).children()
            assert len(children) == 2
            assert list(short.glob("kiosk-demo-*"))
            process.send_signal(number)
            process.communicate(timeout=LIMIT_S)
            assert not [child for child in children if child.is_running()]
        finally:
            hung.cancel()
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
    assert not list(short.glob("kiosk-demo-*"))


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_impatience_does_not_cut_off_the_clean_up(first, second):
    """The first signal ends it, the ones after are nothing; outside all is as it was."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with ended_like_by_hand():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(first)
        try:
            signal.raise_signal(second)
        except KeyboardInterrupt:
            # As itself it would end the whole test run.
            pytest.fail(f"{second!r} cut it off")
    assert [signal.getsignal(number) for number in numbers] == before
