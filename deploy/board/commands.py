"""Other programs, run with their output caught."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from board.layout import USER
from board.refusal import RefusedError

# An unpacking on a worn card takes minutes; beyond this something hangs.
LIMIT_S = 1800.0
_LINES = 12


def run(
    *command: str | Path,
    given: bytes | None = None,
    environ: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, whatever it comes to; RefusedError if it is not there or hangs."""
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words,
            input=b"" if given is None else given,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environ or {})},
            timeout=limit_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise RefusedError(f"{words[0]} expected on the Pi, it is not there") from error
    except subprocess.TimeoutExpired as error:
        told = f"{' '.join(words)} expected to end within {limit_s:g} s, it did not"
        raise RefusedError(told) from error


def must(
    *command: str | Path,
    hint: str = "",
    given: bytes | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """The same, and its standard output; RefusedError with its last lines unless it succeeds."""
    done = run(*command, given=given, environ=environ)
    if done.returncode != 0:
        name = " ".join(str(word) for word in command)
        raise RefusedError(f"{name}: status {done.returncode}: {_last(done)}", hint)
    return done.stdout.decode("utf-8", errors="replace")


def as_kiosk(*command: str | Path) -> tuple[str | Path, ...]:
    """The command run as the kiosk's own user."""
    return ("runuser", "-u", USER, "--", "env", "HOME=/var/lib/kiosk", *command)


def there(name: str) -> bool:
    """Whether a program is on the path, or where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", errors="replace")
    return " | ".join(text.splitlines()[-_LINES:])
