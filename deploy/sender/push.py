"""One deploy to one Pi, step by step, each told; whatever fails leaves the old release running."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sender.build import File, Release, Target, release_for
from sender.commit import Commit
from sender.hosts import Host
from sender.link import Link
from sender.refusal import DeployError

Say = Callable[[str], None]
# A clock that differs by more is worth a word: certificates and estimated times hang on it.
_CLOCK_S = 300.0
_UNKNOWN_KEY = "a server that does not know the key takes nothing; kiosk-server invite makes a code"
_SAMPLE = "copy deploy/kiosk.example.toml, set server.url and [camera], and say CONFIG="


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends what from where."""

    checkout: Path
    commit: Commit
    who: str
    origin: str
    code: str = ""
    """A one-time code of the server, to register the sign key with; "" for none."""

    def link(self, host: Host) -> Link:
        """A session with a Pi."""
        return Link(host, self.checkout / "deploy/board", who=self.who, origin=self.origin)


def deploy(sender: Sender, host: Host, say: Say) -> bool:
    """Deploy; whether the release was kept. DeployError before anything was switched."""
    ours = _ours(host)
    with sender.link(host) as link:
        facts = link.ask("check")
    _tell(facts, host, say)
    settings = _settings(facts, host) if ours is None else ours
    modules = _modules(settings)
    if not facts["release"] and not sender.code and _signs(settings):
        say(f"warning: server.key_id is set, and there is no CODE=: {_UNKNOWN_KEY}")
    target = Target(facts["codename"], facts["python"], facts["machine"])
    release = release_for(sender.checkout, sender.commit, target, say)
    if _stands(facts, host, release, settings) and not sender.code:
        say(f"{release.name} runs there already, with this configuration: nothing to do")
        return True
    say(f"release {release.name} ({facts['release'] or 'none'} runs there)")
    with sender.link(host) as link:
        link.ask("sweep", say)
        # Another configuration alone brings no files.
        if release.name != facts["release"]:
            send(link, [release.parcel, *release.wheels], say)
            _unpack(link, sender, release, say)
        link.ask("modules", say, wanted=modules)
        link.ask("furnish", say, release=release.name, timezone=host.timezone)
        # Compared there: somebody may have deployed another one while this release was built.
        changed = False
        if ours is not None:
            changed = bool(link.ask("propose", text=ours.decode())["changed"])
        link.ask("rehearse", say, release=release.name, proposed=changed)
        if sender.code:
            asked: dict[str, Any] = {
                "release": release.name,
                "proposed": changed,
                "code": sender.code,
            }
            say(link.ask("register", **asked)["said"])
        say("on trial now: it is watched from the Pi itself, whatever becomes of this link")
        plan = {
            "action": "deploy",
            "commit": sender.commit.id,
            "dirty": sender.commit.dirty,
            "settings": "proposed" if changed else "",
        }
        verdict = link.ask("try", say, release=release.name, health_s=host.health_s, facts=plan)
    return told(verdict, say)


def rollback(sender: Sender, host: Host, say: Say) -> bool:
    """Go back to the release before; whether that was kept."""
    with sender.link(host) as link:
        return told(link.ask("rollback", say, health_s=host.health_s), say)


def uninstall(sender: Sender, host: Host, say: Say, *, lose_events: bool) -> bool:
    """Take the kiosk off a Pi; whether nothing of it was found afterwards."""
    with sender.link(host) as link:
        left = link.ask("uninstall", say, lose_events=lose_events)["left"]
    for path in left:
        say(f"still there: {path}")
    return not left


def told(verdict: dict[str, Any], say: Say) -> bool:
    """Tell a verdict, with the journal's last lines where it is a bad one; whether it was kept."""
    if verdict["outcome"] == "kept":
        say(f"{verdict['release']} is healthy and stays")
        return True
    for line in verdict.get("journal", ()):
        say(f"    {line}")
    say(f"{verdict['release']} {verdict['outcome']}: {verdict['why']}")
    if verdict["outcome"] == "went back":
        say(f"the release before runs again ({verdict.get('after', '')})")
    return False


def send(link: Link, files: list[File], say: Say) -> None:
    """Send what the Pi has not, from where the last try was cut off."""
    here = link.ask("have", files=[file.facts for file in files])
    lacking = [file for file in files if here[file.sha256] < file.size]
    if not lacking:
        say("all packages are there already")
        return
    total = sum(file.size - here[file.sha256] for file in lacking)
    say(f"sending {len(lacking)} of {len(files)} files, {total / 1e6:.1f} MB")
    meter = _Meter(total, say)
    for file in lacking:
        offset = here[file.sha256]
        meter.begin(offset)
        link.send(file, offset, meter.progress)


class _Meter:
    """Tells how much is sent, every few seconds."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say = total, say
        self._done = 0
        self._file_at = 0
        self._told = time.monotonic()

    def begin(self, offset: int) -> None:
        self._file_at = offset

    def progress(self, name: str, sent: int, _: int) -> None:
        self._done += sent - self._file_at
        self._file_at = sent
        now = time.monotonic()
        if now - self._told >= 5.0:
            self._told = now
            self._say(f"{self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB, {name}")


def _unpack(link: Link, sender: Sender, release: Release, say: Say) -> None:
    facts = {
        "version": release.version,
        "commit": sender.commit.id,
        "dirty": sender.commit.dirty,
        "who": sender.who,
        "from": sender.origin,
    }
    link.ask(
        "unpack",
        say,
        release=release.name,
        parcel=release.parcel.facts,
        wheels=[wheel.facts for wheel in release.wheels],
        libraries=release.libraries,
        facts=facts,
    )


def _tell(facts: dict[str, Any], host: Host, say: Say) -> None:
    """What the Pi is; DeployError names everything that is missing."""
    say(
        f"{facts['board']}, {facts['system']} ({facts['machine']}), Python {facts['python']},"
        f" {facts['free_mb']} MB free, time zone {facts['timezone'] or 'unknown'},"
        f" power {facts['power']}"
    )
    if facts["missing"]:
        told = "; ".join(f"{each['what']} ({each['hint']})" for each in facts["missing"])
        raise DeployError(f"{host.name}: {told}", "nothing was changed")
    for warning in facts["warnings"]:
        say(f"warning: {warning}")
    behind = time.time() - facts["utc"]
    if abs(behind) > _CLOCK_S:
        word = "behind" if behind > 0 else "ahead of"
        say(f"warning: its clock is {abs(behind) / 3600:.1f} h {word} this machine's")
    if host.timezone and facts["timezone"] != host.timezone:
        say(f"its time zone is {facts['timezone']}, {host.timezone} is wanted: it will be set")


def _stands(facts: dict[str, Any], host: Host, release: Release, settings: bytes) -> bool:
    """Whether a deploy would change nothing: the release runs, with this configuration and zone."""
    return (
        facts["release"] == release.name
        and facts["active"] == "active"
        and settings == facts["settings"].encode()
        and host.timezone in ("", facts["timezone"])
    )


def _ours(host: Host) -> bytes | None:
    """The configuration that was named; None for none. What will not do is said at once."""
    if not host.config:
        return None
    try:
        settings = Path(host.config).read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise DeployError(
            f"CONFIG={host.config!r}: expected a file, got: {told}", _SAMPLE
        ) from error
    _modules(settings)
    return settings


def _settings(facts: dict[str, Any], host: Host) -> bytes:
    """The configuration that the Pi has."""
    if not facts["has_settings"]:
        raise DeployError(
            f"{host.name}: expected a configuration there, or CONFIG=file here; got neither",
            _SAMPLE,
        )
    return str(facts["settings"]).encode()


def _signs(settings: bytes) -> bool:
    """Whether the kiosk will sign what it sends."""
    return bool(_table(settings, "server").get("key_id"))


def _table(settings: bytes, name: str) -> dict[str, Any]:
    """A table of the configuration, empty where it has none; DeployError if it is no TOML."""
    try:
        found = tomllib.loads(settings.decode("utf-8")).get(name, {})
    except ValueError as error:
        raise DeployError(f"the configuration: expected TOML, got: {error}", _SAMPLE) from error
    return found if isinstance(found, dict) else {}


def _modules(settings: bytes) -> dict[str, str]:
    """Modules of the operating system, and what this configuration makes of each."""
    source = _table(settings, "camera").get("source", "picamera2")
    return {
        "systemd": "wanted",
        "picamera2": "needed" if source == "picamera2" else "not needed",
        # No configuration lights a lamp yet.
        "lgpio": "not needed",
    }
