"""The support bundle: what somebody far away needs to see what is wrong, and nothing of anybody.

Three rules, each of them enough for most of what could slip in:
- fields that name a person are left out wherever they stand;
- who is enrolled, if that can be asked, is struck out as a word in every text;
- a run of 40 or more characters of base64 or hexadecimal is struck out, unless it is a path of the
  system's: a key, a token and an embedding are longer, ids of events and devices (RFC 9562) have
  36.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from kiosk import __version__
from kiosk.clock import Clock
from kiosk.commands.desk import perform
from kiosk.config import Settings
from kiosk.control import ask
from kiosk.errors import KioskError, UserError
from kiosk.health import Finding

_PERSONAL = frozenset(
    {"person", "people", "employee", "kiosk_employee", "enrol_again", "names", "label"}
)
_LONG = re.compile(r"[A-Za-z0-9+/=_-]{40,}")
_NAMED = re.compile(r"\b(employee|person)=(\"(?:[^\"\\]|\\.)*\"|\S+)", re.IGNORECASE)
_GONE = "[left out]"
_PATH = re.compile(r"/(?:dev|etc|home|lib|media|mnt|opt|proc|root|run|srv|sys|tmp|usr|var)/")
_JOURNAL_LINES = 5000
_JOURNAL_S = 60.0
_OWN = ("kiosk.service", "kiosk")
_READ_ME = """What a kiosk tells of itself, for somebody who helps from afar.

  findings.json   `kiosk doctor`
  status.json     the running daemon, if it answered
  config.json     the configuration as it is understood
  system.json     machine and operating system
  journal.jsonl   the newest lines of the daemon's journal, the oldest first

Left out: pictures, embeddings, keys, tokens, and who is enrolled. Long runs of base64 or
hexadecimal are struck out. Read it before you send it all the same: it is yours.
"""

Document = dict[str, Any] | list[Any] | str | int | float | bool | None


class Censor:
    """Strikes out of documents and texts what names a person or may be a secret."""

    def __init__(self, people: tuple[str, ...]) -> None:
        # A number alone would take counts and times with it; it stands in fields that go anyway.
        words = sorted((p for p in people if not p.isdecimal()), key=len, reverse=True)
        joined = "|".join(re.escape(word) for word in words)
        self._people = re.compile(rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE) if words else None

    def text(self, text: str) -> str:
        """A text without them."""
        text = _NAMED.sub(rf"\1={_GONE}", text)
        if self._people is not None:
            text = self._people.sub(_GONE, text)
        return _LONG.sub(lambda run: run[0] if _PATH.match(run[0]) else _GONE, text)

    def document(self, document: Document) -> Document:
        """A document of JSON without them, its form kept; numbers of people are kept too."""
        match document:
            case dict():
                return {
                    self.text(key): _GONE if _names(key, value) else self.document(value)
                    for key, value in document.items()
                }
            case list():
                return [self.document(value) for value in document]
            case str():
                return self.text(document)
        return document


def _names(key: str, value: Document) -> bool:
    return key.lower() in _PERSONAL and value is not None and not isinstance(value, int | float)


def write_bundle(
    path: Path, settings: Settings | None, findings: list[Finding], clock: Clock
) -> list[str]:
    """Write the bundle (tar, gzip) for its owner's eyes alone; the names of what is in it.

    Raises UserError when something is at `path` already or nothing can be written there.
    """
    censor = Censor(() if settings is None else _enrolled(settings))
    parts = {"README.txt": _READ_ME}
    for name, made in _documents(settings, findings):
        parts[name] = json.dumps(censor.document(made), indent=2, ensure_ascii=False) + "\n"
    lines = [json.dumps(censor.document(line), ensure_ascii=False) for line in _journal()]
    parts["journal.jsonl"] = "\n".join(lines) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, text in parts.items():
                _add(tar, name, text.encode(), clock.now().utc_ms // 1000)
    except FileExistsError as error:
        raise UserError(
            f"{path}: expected a new file, one is there", hint="name another"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: expected to be written, got: {error.strerror}",
            hint="name a folder that this user may write in, such as /tmp",
        ) from error
    return list(parts)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mtime: int) -> None:
    entry = tarfile.TarInfo(f"kiosk-support/{name}")
    entry.size, entry.mtime, entry.mode = len(data), mtime, 0o600
    tar.addfile(entry, io.BytesIO(data))


def _documents(
    settings: Settings | None, findings: list[Finding]
) -> Iterator[tuple[str, Document]]:
    yield "findings.json", [finding.document() for finding in findings]
    yield "system.json", _system()
    if settings is None:
        return
    yield "config.json", _configuration(settings)
    yield "status.json", _tried(lambda: ask(settings.paths.runtime_dir, "status"))


def _tried(make: Callable[[], Document]) -> Document:
    """What was made, or why it could not be."""
    try:
        return make()
    except KioskError as error:
        return {"error": error.message}


def _enrolled(settings: Settings) -> tuple[str, ...]:
    try:
        return tuple(perform(settings, "gallery.list")["people"])
    except (KioskError, OSError):
        # A broken gallery is why somebody writes a bundle; the other two rules hold without it.
        return ()


def _configuration(settings: Settings) -> Document:
    document: dict[str, Any] = msgspec.to_builtins(settings)
    url = urlsplit(settings.server.url)
    # A token may ride in the rest.
    document["server"]["url"] = f"{url.scheme}://{url.hostname}:{url.port or 'default'}"
    return document


def _system() -> Document:
    uname = platform.uname()
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        release = "unknown"
    return {
        "kiosk": __version__,
        "python": platform.python_version(),
        "system": release,
        "kernel": f"{uname.system} {uname.release} {uname.machine}",
        "board": _read(Path("/proc/device-tree/model")).rstrip("\0"),
        "memory": _read(Path("/proc/meminfo")).splitlines()[:3],
        "pressure": _read(Path("/proc/loadavg")).strip(),
        "temperature_mC": _read(Path("/sys/class/thermal/thermal_zone0/temp")).strip(),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _journal() -> Iterator[Document]:
    """The daemon's lines with their own fields; one line that says why, where there are none."""
    unit, identifier = _OWN
    command = ["journalctl", "--output=json", f"--lines={_JOURNAL_LINES}", "--no-pager"]
    matches = [f"_SYSTEMD_UNIT={unit}", "+", f"SYSLOG_IDENTIFIER={identifier}"]
    try:
        done = subprocess.run(
            [*command, *matches], capture_output=True, timeout=_JOURNAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield {"error": f"journalctl: expected its lines, got: {error}"}
        return
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        yield {"error": f"journalctl: expected its lines, got status {done.returncode}: {words}"}
    for line in done.stdout.splitlines():
        try:
            yield _line(json.loads(line))
        except (ValueError, AttributeError):
            yield {"error": "journalctl: expected a JSON object, got another line"}


def _line(entry: dict[str, Any]) -> Document:
    """What an entry says; a message that is no text comes as a list of bytes."""
    kept = ("__REALTIME_TIMESTAMP", "_BOOT_ID", "_PID", "PRIORITY", "MESSAGE_ID", "MESSAGE")
    document = {key.strip("_").lower(): entry.get(key) for key in kept}
    return document | {
        key.lower(): value for key, value in entry.items() if key.startswith("KIOSK_")
    }
