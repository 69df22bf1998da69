"""Which Pi is meant: an address, or the name of a file in `deploy/hosts`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sender.refusal import DeployError

_ADDRESS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:%-]{0,251}[A-Za-z0-9_])?")
_TIMEZONE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_EXAMPLE = "deploy/hosts/example.toml"
_LIKE = f"{_EXAMPLE} shows what it may hold"
_WORDS: dict[type, str] = {str: "text", int: "a whole number", float: "a number"}
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Host:
    """A Pi and how it is reached; `name` is what the person said."""

    name: str
    address: str
    user: str = "pi"
    port: int = 22
    config: str = ""
    """The kiosk's configuration on the sender, "" for the one on the Pi."""
    timezone: str = ""
    """What the Pi's time zone must be, "" for whatever it is."""
    health_s: float = 60.0


def host_named(name: str, folder: Path, said: dict[str, str]) -> Host:
    """The host of a name, `said` on the command line before the file's word; DeployError."""
    host = Host(name, name)
    file = folder / f"{name}.toml"
    if _ADDRESS.fullmatch(name) and file.is_file():
        host = replace(host, **_settings(file))
    host = replace(host, **_said(said))
    hint = f"say it on the command line, or in deploy/hosts (see {_EXAMPLE})"
    # One colon makes no IPv6 address.
    if not _ADDRESS.fullmatch(host.address) or host.address.count(":") == 1:
        hint = "say PI=HOST PI_USER=NAME" if "@" in host.address else hint
        hint = "say PI=HOST PI_PORT=22" if ":" in host.address else hint
        raise DeployError(f"PI: expected a host's name or address, got {host.address!r}", hint)
    if not _USER.fullmatch(host.user):
        raise DeployError(f"PI_USER: expected a user's name, got {host.user!r}", hint)
    if not 0 < host.port < 65536:
        raise DeployError(f"PI_PORT: expected 1..65535, got {host.port}", hint)
    if not 1 <= host.health_s <= 3600:
        raise DeployError(f"HEALTH_S: expected 1..3600 seconds, got {host.health_s:g}", hint)
    if host.timezone and not _TIMEZONE.fullmatch(host.timezone):
        raise DeployError(f"timezone: expected one like Europe/Vienna, got {host.timezone!r}", hint)
    return host


def _said(said: dict[str, str]) -> dict[str, Any]:
    """What was said on the command line, as numbers where they are; DeployError for others."""
    found: dict[str, Any] = {key: value for key, value in said.items() if value}
    for key, variable, kind, what in (
        ("port", "PI_PORT", int, "1..65535"),
        ("health_s", "HEALTH_S", float, "1..3600 seconds"),
    ):
        if key in found:
            try:
                found[key] = kind(found[key])
            except ValueError as error:
                told = f"{variable}: expected {what}, got {found[key]!r}"
                raise DeployError(told, f"make deploy PI=... {variable}=...") from error
    return found


def _settings(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeployError(f"{file}: expected TOML, got: {error}", _LIKE) from error
    kinds = {f.name: type(f.default) for f in fields(Host) if f.name not in {"name", "address"}}
    kinds["address"] = str
    for key, value in found.items():
        if key not in kinds:
            known = ", ".join(sorted(kinds))
            raise DeployError(f"{file}: expected one of {known}, got {key!r}", _LIKE)
        kind = kinds[key]
        right = isinstance(value, (int, float) if kind is float else kind)
        if not right or isinstance(value, bool):
            raise DeployError(f"{file}: {key}: expected {_WORDS[kind]}, got {value!r}", _LIKE)
    if found.get("config"):
        found["config"] = str(file.parent / found["config"])
    return found
