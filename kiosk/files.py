"""Files that a user names: read or looked for, and what to do when that cannot be."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kiosk.errors import ConfigError

_PEM = b"-----BEGIN "
AS_THE_USER = "run as the kiosk's user (sudo -u kiosk), or mend owner and mode"


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration as it stands; ConfigError that says why it cannot be had."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a configuration in TOML, got: {error.strerror}",
            hint=_hint_for(error),
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", problems=(f"{path}: {error}",)) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: expected a flat file, got one nested too deeply") from error


def _hint_for(error: OSError) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return (
                "name the one you have (kiosk COMMAND --config FILE), or copy"
                " deploy/kiosk.example.toml there and edit it"
            )
        case PermissionError():
            return f"{AS_THE_USER}: it and the folders above it must be open to this user"
        case IsADirectoryError():
            return "name the file in it"
    return "see that the disk and the path are right"


def pem_problem(path: Path) -> tuple[str, str] | None:
    """What is wrong with a file that is to be PEM, and what to do about it; None if nothing is."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return "expected a PEM file, there is none", "put it there or mend the configuration"
    except PermissionError:
        return "expected a PEM file, this user may not read it", AS_THE_USER
    except IsADirectoryError:
        return "expected a PEM file, it is a folder", "name the file in it"
    except (OSError, ValueError) as error:
        return f"expected a PEM file, got: {error}", "put it there or mend the configuration"
    if _PEM not in data:
        found = "expected a PEM file, it holds no line of -----BEGIN"
        return found, f"if it is DER: openssl x509 -inform DER -in {path} -out {path}.pem"
    return None


def lacks(path: Path, is_such: Callable[[Path], bool]) -> bool:
    """Whether no such thing is at `path`; False where this user may not look: nothing is known."""
    try:
        return not is_such(path)
    except PermissionError:
        return False


def replaceable_problem(path: Path, state_dir: Path) -> str | None:
    """Why the kiosk could not keep the file at `path` up to date; None if nothing is known of it.

    It is replaced as a whole, so its folder must be writable for the kiosk's user: the owner of
    `state_dir` where that is there, else whoever asks, unless that is root.
    """
    folder = path.parent
    if lacks(folder, Path.exists):
        return f"expected a folder at {str(folder)!r}, there is none"
    if lacks(folder, Path.is_dir):
        return f"expected a folder at {str(folder)!r}, it is a file"
    # Not `lacks`: what may not be seen is no folder here.
    with contextlib.suppress(PermissionError):
        if path.is_dir():
            return "expected a file or nothing there, it is a folder"
    user = _user_of(state_dir)
    if user is None or _may_write(folder, user):
        return None
    return (
        f"expected a folder that {_name_of(user)}, as whom the kiosk runs, may write in, got"
        f" {str(folder)!r} with {_mode_words(folder)}"
    )


def _user_of(state_dir: Path) -> int | None:
    try:
        return state_dir.stat().st_uid
    except OSError:
        return os.geteuid() or None


def _may_write(folder: Path, user: int) -> bool:
    """Whether the user may make files in the folder; True as well where that cannot be told."""
    if user == os.geteuid():
        return os.access(folder, os.W_OK | os.X_OK)
    if user == 0:
        return True
    try:
        known = pwd.getpwuid(user)
        groups = os.getgrouplist(known.pw_name, known.pw_gid)
        on_the_way = (_is_open(each, user, groups, stat.S_IXOTH) for each in folder.parents)
        return _is_open(folder, user, groups, stat.S_IWOTH | stat.S_IXOTH) and all(on_the_way)
    except (OSError, KeyError):
        return True


def _is_open(folder: Path, user: int, groups: list[int], wanted: int) -> bool:
    facts = folder.stat()
    if "system.posix_acl_access" in os.listxattr(folder):
        return True
    if facts.st_uid == user:
        wanted <<= 6
    elif facts.st_gid in groups:
        wanted <<= 3
    return facts.st_mode & wanted == wanted


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user id {user}"


def _mode_words(folder: Path) -> str:
    try:
        facts = folder.stat()
    except OSError as error:
        return f"an answer of {error.strerror}"
    return f"owner {_name_of(facts.st_uid)} and mode {stat.S_IMODE(facts.st_mode):04o}"
