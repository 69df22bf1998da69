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
from board.layout import USER, Layout, point, write
from board.refusal import RefusedError

Say = Callable[[str], None]
_SECRET_BYTES = 32
_CREDENTIAL = "kiosk.secret"
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
    units = sorted(path.name for path in layout.units.glob("kiosk*.*") if path.is_file())
    for unit in units:
        run("systemctl", "disable", "--now", "--quiet", unit)
    say(f"stopped: {', '.join(units) or 'nothing, no unit of a kiosk was there'}")
    for path in _ours(layout):
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        elif path.is_dir():
            shutil.rmtree(path)
    run("systemctl", "daemon-reload")
    run("journalctl", "--update-catalog")
    if _known_user():
        run("userdel", USER)
    # A card keeps what was deleted until it is told that nobody wants it.
    run("fstrim", "/")
    left = [str(path) for path in _ours(layout) if path.exists()] + _left_behind(layout)
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
    must(
        *("systemd-creds", "encrypt", f"--name={_CREDENTIAL}", "-", layout.credential),
        given=os.urandom(_SECRET_BYTES),
        hint="systemd-creds seals it for this machine; see its manual page",
    )
    layout.credential.chmod(0o600)
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
    kiosk = layout.kiosk(layout.current)
    if lose_events or not kiosk.exists() or not (layout.state / "outbox.db").exists():
        return
    done = run(*_as_service(layout), kiosk, "outbox", "status", "--config", layout.settings)
    said = done.stdout.decode("utf-8", errors="replace").strip()
    if done.returncode != 0 or not said.startswith("0 waiting, 0 set aside"):
        raise RefusedError(
            f"expected no event that only this Pi has, got: {said or done.stderr.decode().strip()}",
            "bring them out (kiosk outbox export), then say LOSE_EVENTS=1: here they stay queued",
        )


def _ours(layout: Layout) -> list[Path]:
    """Every place that a deploy, or the kiosk, writes to."""
    named = [
        layout.home,
        layout.settings.parent,
        layout.state,
        layout.root / "run/kiosk",
        layout.root / "usr/lib/systemd/catalog/kiosk.catalog",
        *layout.credential.parent.glob("kiosk.*"),
        *layout.units.glob("kiosk*"),
        *layout.units.glob("*.wants/kiosk*"),
        *([layout.command] if _is_ours(layout) else []),
    ]
    return named + [layout.root / "etc" / folder / Path(name).name for name, folder, _ in _DROP_INS]


def _left_behind(layout: Layout) -> list[str]:
    """Files by the names that templates, queue and keys have, wherever they are on this disk."""
    words = [
        "-name",
        "gallery.sealed*",
        "-o",
        "-name",
        "gallery.copy*",
        "-o",
        "-name",
        "outbox.db*",
    ]
    words += [
        "-o",
        "-name",
        "outbox.backup*",
        "-o",
        "-name",
        "device.secret*",
        "-o",
        "-name",
        "kiosk.secret*",
    ]
    done = run("find", layout.root, "-xdev", "(", *words, ")", "-print")
    return done.stdout.decode("utf-8", errors="replace").split()
