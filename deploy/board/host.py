"""What a Pi needs once: user, folders, secret, time, watchdog, journal; twice changes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from board import switch
from board.commands import must, run
from board.layout import SERVICE, USER, Layout, folders, point, write
from board.refusal import RefusedError

Say = Callable[[str], None]
_SECRET_BYTES = 32
_CREDENTIAL = "kiosk.secret"
# Of templates, queue and keys, and of their copies.
_TELLING = (
    *("gallery.sealed", "gallery.copy", "outbox.db", "outbox.backup"),
    *("device.secret", "device.spare", _CREDENTIAL, "kiosk.board-key"),
)
# Below /etc: where it goes, and what has to read it anew.
_DROP_INS = (
    ("system.conf.d/10-kiosk-watchdog.conf", "systemd/system.conf.d", ("daemon-reexec",)),
    ("journald.conf.d/10-kiosk.conf", "systemd/journald.conf.d", ("restart", "systemd-journald")),
)


def furnish(layout: Layout, release: str, timezone: str, say: Say) -> dict[str, list[str]]:
    """See to all of it; what was changed, nothing the second time. `timezone`: "" leaves it."""
    # Each looks when its turn comes: folders want their user.
    steps = (
        _user(),
        _folders(layout),
        _command(layout),
        _secret(layout),
        _drop_ins(layout, layout.release(release) / "deploy"),
        _time(timezone),
    )
    changed = [told for step in steps for told in step]
    for told in changed:
        say(told)
    if not changed:
        say("the Pi is furnished already, nothing was changed")
    return {"changed": changed}


def register(layout: Layout, release: str, code: str, *, proposed: bool) -> dict[str, str]:
    """Hand the sign key to the server, once, for a one-time code; as the service, which has it.

    Before the trial: without it the server takes none of what the new configuration signs.
    """
    settings = switch.proposed(layout) if proposed else layout.settings
    kiosk = layout.kiosk(layout.release(release))
    command = (kiosk, "key", "register", "--config", settings)
    done = run(*_as_service(layout), *command, given=code.encode() + b"\n")
    if done.returncode != 0:
        told = (done.stderr or done.stdout).decode("utf-8", errors="replace").strip()
        raise RefusedError(told.removeprefix("kiosk: "), "nothing was switched")
    return {"said": done.stdout.decode("utf-8", errors="replace").strip()}


def uninstall(layout: Layout, say: Say, *, lose_events: bool) -> dict[str, list[str]]:
    """Take everything off this Pi, and look whether it is gone; what is found is returned.

    RefusedError while events wait that no server has, unless `lose_events`.
    """
    _refuse_while_events_wait(layout, lose_events=lose_events)
    run("systemctl", "stop", SERVICE)
    try:
        # Somebody may have punched since: nobody can any more.
        _refuse_while_events_wait(layout, lose_events=lose_events)
    except RefusedError:
        run("systemctl", "--no-block", "start", SERVICE)
        raise
    units = _units(layout)
    ours = _ours(layout, units)
    for unit in units:
        run("systemctl", "disable", "--now", "--quiet", unit)
    there = [unit for unit in units if (layout.units / unit).exists()]
    say(f"stopped: {', '.join(there) or 'nothing, no unit of a kiosk was there'}")
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            # What it cannot remove is told below, and the rest goes all the same.
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    run("systemctl", "daemon-reload")
    run("journalctl", "--update-catalog")
    if _known_user():
        run("userdel", USER)
    # A card keeps what was deleted until it is told that nobody wants it.
    run("fstrim", "/")
    left = [str(path) for path in ours if _is_there(path)] + _left_behind(layout)
    say("the secret is gone, and with it whatever was sealed under it" if not left else "NOT gone")
    return {"left": left}


def _user() -> Iterator[str]:
    if _known_user():
        return
    home = ("--home-dir", "/var/lib/kiosk", "--no-create-home")
    must("useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin", USER)
    yield f"user {USER} made"


def _known_user() -> bool:
    try:
        pwd.getpwnam(USER)
        grp.getgrnam(USER)
    except KeyError:
        return False
    return True


def _folders(layout: Layout) -> Iterator[str]:
    user = pwd.getpwnam(USER)
    for folder, mode, owner, group in (
        (layout.settings.parent, 0o750, 0, user.pw_gid),
        (layout.state, 0o700, user.pw_uid, user.pw_gid),
        (layout.credential.parent, 0o700, 0, 0),
    ):
        if folder.is_dir():
            found = folder.stat()
            if (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, owner, group):
                continue
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        os.chown(folder, owner, group)
        yield f"{folder}: made, mode {mode:o}"


def _command(layout: Layout) -> Iterator[str]:
    """`kiosk` on the path; what somebody else has put there stays."""
    target = layout.kiosk(layout.current)
    if not os.path.lexists(layout.command):
        layout.command.parent.mkdir(parents=True, exist_ok=True)
        point(layout.command, target)
        yield f"{layout.command}: made, the command of the release that runs"
    elif not _is_ours(layout):
        yield f"warning: {layout.command} is somebody else's and stays; the kiosk's is {target}"


def _is_ours(layout: Layout) -> bool:
    link = layout.command
    return link.is_symlink() and link.readlink() == layout.kiosk(layout.current)


def _secret(layout: Layout) -> Iterator[str]:
    """A new secret, sealed for this machine; never beside one that something is sealed with."""
    kept = [layout.credential, layout.state / "device.secret"]
    if any(path.exists() for path in kept):
        return
    if (layout.state / "outbox.db").exists():
        raise RefusedError(
            f"{layout.state}: expected the secret that its queue is sealed with, there is none",
            "restore it, or move the folder away and begin anew; nothing was changed",
        )
    sealed = must(
        *("systemd-creds", "encrypt", f"--name={_CREDENTIAL}", "-", "-"),
        given=os.urandom(_SECRET_BYTES),
        hint="systemd-creds seals it for this machine; see its manual page",
    )
    # On the disk before anything is sealed with it: a power cut must not leave half of it.
    write(layout.credential, sealed.encode(), 0o600)
    yield "device secret made here and sealed for this machine"


def _drop_ins(layout: Layout, source: Path) -> Iterator[str]:
    for name, folder, reread in _DROP_INS:
        content = (source / name).read_bytes()
        target = layout.root / "etc" / folder / Path(name).name
        if target.exists() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, content)
        run("systemctl", *reread)
        yield f"{target}: written"


def _time(timezone: str) -> Iterator[str]:
    def shown(name: str) -> str:
        done = run("timedatectl", "show", "-p", name, "--value")
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    if shown("CanNTP") == "yes" and shown("NTP") == "no":
        must("timedatectl", "set-ntp", "true")
        if shown("NTP") == "yes":
            yield "time synchronisation switched on"
    if timezone and shown("Timezone") != timezone:
        must("timedatectl", "set-timezone", timezone, hint="timedatectl list-timezones")
        yield f"time zone set: {timezone}"


def _as_service(layout: Layout) -> tuple[str, ...]:
    """A command with the service's user and credentials."""
    command = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", f"User={USER}")
    if not layout.credential.exists():
        return command
    return (*command, "-p", f"LoadCredentialEncrypted={_CREDENTIAL}:{layout.credential}")


def _refuse_while_events_wait(layout: Layout, *, lose_events: bool) -> None:
    if lose_events or not (layout.state / "outbox.db").exists():
        return
    kiosk = layout.kiosk(layout.current)
    if kiosk.exists():
        done = run(*_as_service(layout), kiosk, "outbox", "status", "--config", layout.settings)
        said = done.stdout.decode("utf-8", errors="replace").strip()
        if done.returncode == 0 and said.startswith("0 waiting, 0 set aside"):
            return
        told = said or done.stderr.decode("utf-8", errors="replace").strip()
    else:
        told = f"a queue, and no {kiosk} that can tell"
    raise RefusedError(
        f"expected no event that only this Pi has, got: {told}",
        "bring them out (kiosk outbox export), then say LOSE_EVENTS=1: here they stay queued",
    )


def _units(layout: Layout) -> list[str]:
    """The units that came with a release; others may be called kiosk-something too."""
    found = {SERVICE}
    for release in folders(layout.releases):
        found |= switch.units(release).keys()
    return sorted(found)


def _ours(layout: Layout, units: list[str]) -> list[Path]:
    """Every place that a deploy, or the kiosk, writes to; keys and templates first.

    The releases come last: they know the units, should this be cut short.
    """
    named = [*layout.credential.parent.glob("kiosk.*"), layout.state, layout.settings.parent]
    named += [layout.root / "etc" / folder / Path(name).name for name, folder, _ in _DROP_INS]
    for unit in units:
        named += [*layout.units.glob(f"{unit}*"), *layout.units.glob(f"*.wants/{unit}")]
    catalogue = layout.root / "usr/lib/systemd/catalog/kiosk.catalog"
    command = [layout.command] if _is_ours(layout) else []
    return [*named, catalogue, layout.root / "run/kiosk", *command, layout.home]


def _is_there(path: Path) -> bool:
    """Whether something is left there; a partition of its own is not taken away, only emptied."""
    if not path.is_symlink() and path.is_mount():
        return any(path.iterdir())
    return path.is_symlink() or path.exists()


def _left_behind(layout: Layout) -> list[str]:
    """Files by the names that templates, queue and keys have, wherever they are on this disk."""
    words = [word for name in _TELLING for word in ("-o", "-name", f"{name}*")][1:]
    done = run("find", layout.root, "-xdev", "(", *words, ")", "-print0")
    return [name for name in done.stdout.decode("utf-8", errors="replace").split("\0") if name]
