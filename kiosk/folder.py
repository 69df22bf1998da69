"""A folder of the kiosk's own, in which nobody else can put or replace anything."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kiosk.errors import KioskError


def make_folder(path: Path, key: str, mode: int) -> None:
    """Make it with exactly `mode`, or check one that is there.

    KioskError, naming the configuration's `key`, when it cannot be made or written, and when
    somebody other than this user and root owns it or could write in it.
    """
    try:
        path.mkdir(mode=mode, parents=True)
        # Whatever the umask let through of it.
        path.chmod(mode)
    except FileExistsError:
        _check(path, key)
    except (OSError, ValueError) as error:
        raise KioskError(
            f"{key} {path}: expected a folder to write to, got: {_reason(error)}",
            hint=f"make it writable for this user or set {key}",
        ) from error


def _check(path: Path, key: str) -> None:
    problem = folder_problem(path)
    if problem is not None:
        raise KioskError(f"{key} {path}: {problem[0]}", hint=problem[1])


def folder_problem(path: Path, user: int | None = None) -> tuple[str, str] | None:
    """What is wrong with a folder that is there, and what to do about it; None if nothing is.

    `user`: whose it should be; None for whoever asks.
    """
    user = os.geteuid() if user is None else user
    try:
        facts = path.stat()
    except OSError as error:
        return f"expected a folder, got: {_reason(error)}", "mend the path or move it away"
    if not stat.S_ISDIR(facts.st_mode):
        return "expected a folder, got a file", "move it away"
    if facts.st_uid not in (user, 0):
        # Root that took it over would lock the service out.
        advice = "" if user == 0 else ", or give the folder to it: chown"
        return (
            f"expected an owner of user id {user}, got {facts.st_uid}",
            f"run as the kiosk's own user (sudo -u kiosk){advice}",
        )
    if facts.st_mode & 0o022:
        return (
            "expected to be writable by its owner only, got mode"
            f" {stat.S_IMODE(facts.st_mode):04o}",
            f"see what others put there, then chmod go-w {path}",
        )
    return None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
