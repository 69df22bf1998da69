"""Clones of a checkout, in which releases are made."""

import os
import re
import subprocess
import sys

from deploy.site import HANG_S, REPOSITORY


class Clone:
    """A clone that releases are made in."""

    def __init__(self, folder, cache=REPOSITORY / ".cache", **environ):
        self.folder, self.environ, self.said = folder, environ, ""
        (folder / ".cache").mkdir()
        for name in ("tools", "wheelhouse"):
            (cache / name).mkdir(parents=True, exist_ok=True)
            (folder / ".cache" / name).symlink_to(cache / name)

    def begin(self, *variables, umask=0o022):
        words = ["make", "--silent", "release", f"PYTHON={sys.executable}", *variables]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=umask,
            start_new_session=True,
        )

    def release(self, *variables):
        """Exit status and what was said."""
        with self.begin(*variables) as process:
            said, _ = process.communicate(timeout=HANG_S)
        return process.returncode, said

    def made(self, version="*"):
        """The folder of the one release that there is."""
        (folder,) = (self.folder / "dist").glob(version)
        return folder


def cloned(source, folder, *options):
    subprocess.run(["git", "clone", "--quiet", *options, source, folder], check=True)
    return folder


def shorten(lock, names):
    """Leave only these packages in a lock."""
    entries = re.split(r"\n(?=\S)", lock.read_text())
    kept = [entry for entry in entries if entry.startswith(tuple(f"{name}==" for name in names))]
    assert len(kept) == len(names)
    lock.write_text("\n".join(kept) + "\n")
