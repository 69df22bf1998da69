"""Several Pis in one command: one after the other, or side by side in a table."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sender.hosts import Host
from sender.link import Link
from sender.push import Sender
from sender.refusal import DeployError

Say = Callable[[str], None]
_MARK = "kiosk-answer:"
_KIOSK = "/opt/kiosk/current/venv/bin/kiosk"
# Many pictures on a slow board take minutes; the table of all others does not wait longer for one.
_LIMIT_S = 600.0
# With the service's secret: where no daemon runs, the queue and the gallery open with it only.
_AS_SERVICE = (
    "systemd-run --quiet --pipe --wait --collect -p User=kiosk"
    " -p LoadCredentialEncrypted=kiosk.secret -p LoadCredentialEncrypted=kiosk.board-key"
)
# A picture there: its number, and its own suffix.
_SENT = re.compile(r"\S*/tmp\.\w+/(\d+)\.\w*")
# The gallery is open with the daemon only, and is asked for through it.
_AWAKE = (
    f"[ ! -x {_KIOSK} ] || systemctl is-active --quiet kiosk ||"
    " { echo 'expected the kiosk to run, it does not: sudo systemctl start kiosk' >&2; exit 1; }"
)
_CONFIG = "--config /etc/kiosk/kiosk.toml"


def one_after_the_other(
    hosts: Sequence[Host], work: Callable[[Host], bool], say: Callable[[Host, str], None]
) -> int:
    """Do it at each, and stop at the first where it fails: the others are left as they are."""
    for index, host in enumerate(hosts):
        try:
            done = work(host)
        except DeployError as error:
            say(host, str(error).removeprefix(f"{host.name}: "))
            done = False
        if not done:
            rest = ", ".join(each.name for each in hosts[index + 1 :])
            if rest:
                say(host, f"stopped here; not touched: {rest}")
            return 1
    return 0


def status(sender: Sender, hosts: Sequence[Host], say: Say) -> int:
    """How each stands, in one table; 1 when one does not answer or is not well."""
    rows: list[tuple[str, ...]] = [
        ("kiosk", "release", "state", "camera", "model", "queue", "server")
    ]
    well = True
    for host in hosts:
        link = sender.link(host)
        try:
            document = json.loads(remote(link, f"{_KIOSK} status --json {_CONFIG}"))
            rows.append(_status_row(host, link, document))
            well &= document["state"] == "running"
        except (DeployError, ValueError, KeyError) as error:
            rows.append((host.name, "-", str(error), "", "", "", ""))
            well = False
    _table(rows, say)
    return 0 if well else 1


def doctor(sender: Sender, hosts: Sequence[Host], say: Say) -> int:
    """Every check of each, those that are not ok, in one table; 1 when one failed."""
    rows = [("kiosk", "verdict", "check", "found")]
    failed = False
    for host in hosts:
        try:
            # Its user is not there either, and systemd-run's status would pass for a finding.
            there = f"[ -x {_KIOSK} ] || {{ echo {_KIOSK}: not found >&2; exit 127; }}"
            asked = f"{_AS_SERVICE} {_KIOSK} doctor --json {_CONFIG} || [ $? = 1 ]"
            command = f"{there}; {asked}"
            findings = json.loads(remote(sender.link(host), command))
        except (DeployError, ValueError) as error:
            rows.append((host.name, "failed", "-", str(error)))
            failed = True
            continue
        amiss = [one for one in findings if one["verdict"] != "ok"]
        failed |= any(one["verdict"] == "failed" for one in amiss)
        for one in amiss:
            rows.append((host.name, one["verdict"], one["what"], one["found"]))
        rows.append((host.name, "ok", f"{len(findings) - len(amiss)} checks", ""))
    _table(rows, say)
    return 1 if failed else 0


def logs(sender: Sender, host: Host, words: str) -> int:
    """The journal, followed until Ctrl-C."""
    try:
        asked = shlex.join(shlex.split(words or "-n 50 -f"))
    except ValueError as error:
        told = f"WORDS: expected options of journalctl, got {words!r} ({error})"
        raise DeployError(told, "close its quotes") from error
    command = f"journalctl -u kiosk -u kiosk-trial {asked}"
    try:
        return subprocess.call(sender.link(host).ssh(_as_root(host, command)))
    except KeyboardInterrupt:
        return 0


def enrol(sender: Sender, host: Host, person: str, images: Sequence[Path], say: Say) -> int:
    """Enrol a person of pictures that lie here; on the Pi they are in memory only, then gone."""
    if not person or not images:
        raise DeployError("expected PERSON=id and IMAGES='a.jpg b.jpg', got not both")
    for image in images:
        if not image.is_file():
            raise DeployError(
                f"IMAGES: expected a picture, {str(image)!r} is none", "name files here"
            )
    pictures = [image.read_bytes() for image in images]
    names = [f"{index}{image.suffix.lower()}" for index, image in enumerate(images)]
    # One command, which takes them away itself: it does so when the link is lost, too. Of a picture
    # that did not come whole nothing is enrolled.
    begin = 'd=$(mktemp -d -p /dev/shm) && trap "exit 1" HUP TERM && trap "rm -rf $d" EXIT'
    takes = [
        f'head -c {len(picture)} >"$d"/{name} && [ "$(stat -c %s "$d"/{name})" = {len(picture)} ]'
        for name, picture in zip(names, pictures, strict=True)
    ]
    there = " ".join(f'"$d"/{name}' for name in names)
    command = " && ".join((begin, *takes, f"{{ {_AWAKE}; }}"))
    command += f" && {_KIOSK} enrol {shlex.quote(person)} {there} {_CONFIG}"

    def as_here(text: str) -> str:
        """What is said of the pictures, with the names that they have here."""
        return _SENT.sub(lambda found: str(images[int(found[1])]), text)

    try:
        said = remote(sender.link(host), command, b"".join(pictures), with_stderr=True)
    except DeployError as error:
        raise DeployError(as_here(error.what), error.hint) from error
    say(as_here(said).strip())
    return 0


def remote(link: Link, command: str, given: bytes = b"", *, with_stderr: bool = False) -> str:
    """What a command prints there, run as root; DeployError with its words where it fails."""
    script = f"echo; echo {_MARK}; {_as_root(link.host, command)}"
    try:
        done = subprocess.run(
            link.ssh(script), input=given, capture_output=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        told = f"{link.host.name}: expected an answer within {_LIMIT_S:g} s, got none"
        raise DeployError(told, "look at it: its card or its kiosk may hang") from error
    # Before the mark: whatever a login script printed.
    said = done.stdout.rpartition(b"\n%s\n" % _MARK.encode())[2]
    if f"{_KIOSK}: not found".encode() in done.stderr:
        raise DeployError(f"{link.host.name}: no kiosk there yet", "make deploy PI=... CONFIG=...")
    if done.returncode != 0:
        raise link.cause(done.stderr, f"status {done.returncode}")
    out = said + (done.stderr if with_stderr else b"")
    return out.decode("utf-8", errors="replace")


def _as_root(host: Host, command: str) -> str:
    return command if host.user == "root" else f"sudo -n sh -c {shlex.quote(command)}"


def _status_row(host: Host, link: Link, status: dict[str, Any]) -> tuple[str, ...]:
    release = remote(link, "basename $(readlink /opt/kiosk/current)").strip()
    queue, online = status["outbox"], status["online"]
    waits = f"{queue['pending']} waiting"
    if queue["quarantined"]:
        waits += f", {queue['quarantined']} aside"
    server = {None: "not asked", True: "answers", False: "silent"}[online]
    model = status["model"] + (" (fallback)" if status.get("fallback") else "")
    return (host.name, release, status["state"], status["camera"], model, waits, server)


def _table(rows: Sequence[Sequence[str]], say: Say) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
