"""`kiosk outbox`: what waits to be sent, what was set aside, another try, and the way out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kiosk.commands.console import (
    add_config,
    add_json,
    complain,
    say,
    say_json,
    settings_of,
    table,
)
from kiosk.commands.desk import Ask, card, desk, perform
from kiosk.commands.key import key_of
from kiosk.errors import UserError
from kiosk.vault import write_atomic

_LISTED = 50


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    outbox = commands.add_parser("outbox", help="the queue on disk").add_subparsers(
        dest="what", required=True
    )
    counts = outbox.add_parser("status", help="how much waits, and since when")
    counts.set_defaults(action=show_outbox)
    waiting = outbox.add_parser("list", help="what waits to be sent, the oldest first")
    waiting.add_argument("--limit", type=int, default=_LISTED, metavar="N", help="1..1000")
    waiting.set_defaults(action=list_events)
    one = outbox.add_parser("show", help="all that is kept of one event, but for the face")
    one.add_argument("event", metavar="EVENT_ID", help="as `kiosk outbox list` shows it")
    one.set_defaults(action=show_event)
    out = outbox.add_parser("export", help="write what waits and what was set aside to a file")
    out.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a name that is free; - for standard output, which must not be a terminal",
    )
    out.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="the state folder on the card of a dead board, mounted here",
    )
    out.add_argument(
        "--recovery-key", type=Path, metavar="FILE", help="the site's, for a card that is sealed"
    )
    out.set_defaults(action=export_events)
    copy = outbox.add_parser("backup", help="have the running daemon write a copy of the queue")
    copy.set_defaults(action=back_up)
    trial = outbox.add_parser("rehearse", help="whether this version can go on with such a copy")
    trial.add_argument("file", type=Path, metavar="FILE", help="the copy, which is changed")
    add_json(trial)
    trial.set_defaults(action=rehearse_on)
    aside = outbox.add_parser("quarantine", help="what was set aside, and why")
    aside.add_argument(
        "--drop", metavar="EVENT_ID", help="take this one out for good; needs --export FILE"
    )
    aside.add_argument(
        "--export", type=Path, metavar="FILE", help="a name that is free: its message goes there"
    )
    aside.set_defaults(action=show_quarantine)
    again = outbox.add_parser("retry", help="send what was set aside once more")
    again.add_argument(
        "events", nargs="*", metavar="EVENT_ID", help="as `kiosk outbox quarantine` lists them"
    )
    again.add_argument("--all", action="store_true", help="everything that was set aside")
    again.set_defaults(action=retry_events)
    for parser in (counts, waiting, one, out, copy, aside, again):
        add_config(parser)
        add_json(parser)


def show_outbox(options: argparse.Namespace) -> int:
    """Counts of the queue, from the daemon or, without one, from the file itself."""
    counts = perform(settings_of(options), "outbox")
    if options.json:
        say_json(counts)
        return 0
    say(queue_words(counts))
    return 0


def list_events(options: argparse.Namespace) -> int:
    """The events that have waited longest."""
    result = perform(settings_of(options), "outbox.list", limit=options.limit)
    if options.json:
        say_json(result)
        return 0
    events = result["events"]
    rows = [
        (event["seq"], event["event_id"], _moment(event["seen_ms"]), str(event["attempts"]))
        for event in events
    ]
    _say_events(("seq", "event", "seen", "times sent"), rows, result["pending"])
    if events and not events[0]["attempts"]:
        # What is counted is requests that carried it; a look for the server carries none.
        say("0 times sent: no connection has stood that could carry it; kiosk status says why")
    return 0


def _say_events(head: Sequence[str], rows: Sequence[Sequence[str]], there: int) -> int:
    say(table(head, rows))
    if there > len(rows):
        say(f"and {there - len(rows)} later ones")
    return 0


def show_event(options: argparse.Namespace) -> int:
    """One event: how it stands, and its message."""
    shown = perform(settings_of(options), "outbox.show", event=options.event)
    if options.json:
        say_json(shown)
        return 0
    message = shown.pop("message") or {}
    shown["seen"], shown["aside"] = _moment(shown.pop("seen_ms")), _moment(shown.pop("aside_ms"))
    for name, value in [*shown.items(), *message.items()]:
        say(f"{name:<12} {'-' if value is None else value}")
    return 0


def export_events(options: argparse.Namespace) -> int:
    """Every event that waits or was set aside, a line each: the message it is sent as.

    All stay where they are; what the server then gets from both sides it counts once. 1 when some
    of them cannot be read: these are named, the others are in the file.
    """
    to_output = str(options.file) == "-"
    if to_output:
        _check_output(options)
    elif options.file.exists():
        raise UserError(f"{options.file}: expected a name that is free, there is a file")
    with _queue_of(options) as ask_for:
        messages, unreadable = _drained(ask_for)
    if to_output:
        for line in messages:
            say(line)
    else:
        write_atomic(options.file, b"".join(f"{line}\n".encode() for line in messages))
        if options.file.stat().st_mode & 0o077:
            complain(f"{options.file}: its file system keeps no modes; others can read it")
    where = "standard output" if to_output else str(options.file)
    complain(f"{where} holds people's faces as numbers: treat it as their photographs")
    for event in unreadable:
        complain(f"left out: {event['event_id']} ({event['seq']}): {event['reason']}")
    if options.json:
        say_json({"file": where, "events": len(messages), "unreadable": unreadable})
        return 1 if unreadable else 0
    count = len(messages)
    stay = "it stays queued" if count == 1 else "they stay queued"
    tell = complain if to_output else say
    tell(f"{counted(count)} in {where}; {stay} here as well")
    return 1 if unreadable else 0


def counted(count: int) -> str:
    """So many events, in words."""
    return f"{count} event" if count == 1 else f"{count} events"


def _check_output(options: argparse.Namespace) -> None:
    if options.json:
        raise UserError("outbox export -: expected without --json, both would go to one output")
    if sys.stdout.isatty():
        raise UserError(
            "outbox export -: expected standard output to lead to a file or a program, got a"
            " terminal",
            hint="name a FILE, or add: > FILE",
        )


def _queue_of(options: argparse.Namespace) -> AbstractContextManager[Ask]:
    settings = settings_of(options)
    if options.folder is None:
        if options.recovery_key is not None:
            raise UserError("--recovery-key: expected together with --from DIR")
        return desk(settings)
    private = None
    if options.recovery_key is not None:
        private = key_of(_text_of(options.recovery_key), "--recovery-key")
    return card(options.folder, settings.server.key_id, private)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the site's recovery key, got: {error}") from error


def _drained(ask_for: Ask) -> tuple[list[str], list[dict[str, Any]]]:
    messages: list[str] = []
    unreadable: list[dict[str, Any]] = []
    beyond: int | None = 0
    while beyond is not None:
        part = ask_for("outbox.export", beyond=beyond)
        messages += part["messages"]
        unreadable += part["unreadable"]
        beyond = part["beyond"]
    return messages, unreadable


def back_up(options: argparse.Namespace) -> int:
    """A copy beside the queue, sealed as that is; people go on punching meanwhile."""
    from kiosk.control import ask
    from kiosk.outbox.store import BACKUP_S

    folder = settings_of(options).paths.runtime_dir
    result = ask(folder, "outbox.backup", answer_s=BACKUP_S)
    if options.json:
        say_json(result)
        return 0
    say(f"{result['file']}: {result['bytes']} bytes; delete it when it is not needed any more")
    return 0


def rehearse_on(options: argparse.Namespace) -> int:
    """Bring the copy to this version's tables and read all of them."""
    from kiosk.outbox.rehearsal import rehearse

    done = rehearse(options.file)
    if options.json:
        say_json({"file": str(options.file), "before": done.before, "after": done.after})
        return 0
    say(f"{options.file}: version {done.before} before, {done.after} now, all tables are sound")
    return 0


def show_quarantine(options: argparse.Namespace) -> int:
    """Every event that was set aside, the oldest first; or one of them taken out."""
    if options.drop is not None or options.export is not None:
        return drop_event(options)
    result = perform(settings_of(options), "outbox.quarantine")
    if options.json:
        say_json(result)
        return 0
    rows = [
        (event["seq"], event["event_id"], _moment(event["aside_ms"]), event["reason"])
        for event in result["events"]
    ]
    return _say_events(("seq", "event", "set aside", "reason"), rows, result["quarantined"])


def drop_event(options: argparse.Namespace) -> int:
    """Take one event out of the quarantine once its message is in a file.

    The file is on the disk before the queue is asked to forget, and the queue does so only for
    somebody who names the very bytes by their hash.
    """
    if options.drop is None or options.export is None:
        raise UserError(
            "outbox quarantine: expected --drop EVENT_ID and --export FILE together, got one",
            hint="an event is dropped only when its message is kept elsewhere",
        )
    file = options.export
    if str(file) == "-":
        raise UserError("--export: expected a file, for standard output may keep nothing")
    if file.exists():
        raise UserError(f"{file}: expected a name that is free, there is a file")
    with desk(settings_of(options), queue_only=True) as ask_for:
        copy = ask_for("outbox.copy", event=options.drop)
        write_atomic(file, copy["message"].encode() + b"\n")
        gone = ask_for("outbox.drop", event=options.drop, sha256=copy["sha256"])
    complain(f"{file} holds a person's face as numbers: treat it as their photograph")
    if options.json:
        say_json({**gone, "file": str(file)})
    else:
        say(f"{gone['event_id']} ({gone['seq']}) dropped; its message is in {file} alone")
    return 0


def retry_events(options: argparse.Namespace) -> int:
    """Queue events again; all of them or, for a wrong id, none."""
    if bool(options.events) == options.all:
        raise UserError("outbox retry: expected event ids or --all, got both or neither")
    events = "all" if options.all else options.events
    result = perform(settings_of(options), "outbox.retry", events=events)
    if options.json:
        say_json(result)
        return 0
    say(f"{result['queued']} queued again")
    return 0


def queue_words(counts: dict[str, Any]) -> str:
    """The counts of the queue in one line."""
    oldest = counts["oldest_ms"]
    since = "" if oldest is None else f", the oldest from {_moment(oldest)}"
    return (
        f"{counts['pending']} waiting{since}, {counts['quarantined']} set aside,"
        f" {counts['settled']} settled"
    )


def disk_words(disk: dict[str, Any]) -> str:
    """The disk and what is kept of it for punches, in one line."""
    ballast = "ballast there" if disk["ballast"] else "no ballast"
    return (
        f"{disk['used']:.0%} in use, {disk['free_bytes'] / 1e6:.0f} MB free;"
        f" reserve {disk['reserve']:.0%}, {ballast}"
    )


def _moment(utc_ms: int | None) -> str:
    if utc_ms is None:
        return "-"
    return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
