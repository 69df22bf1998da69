"""Files that a user names: read or looked for, and what to do when that cannot be."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kiosk.errors import ConfigError

_PEM = b"-----BEGIN "
_AS_THE_USER = "run as the kiosk's user, or mend owner and mode"


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
            return f"{_AS_THE_USER}: it and the folders above it must be open to this user"
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
        return "expected a PEM file, this user may not read it", _AS_THE_USER
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
