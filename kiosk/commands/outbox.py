"""`kiosk outbox`: what waits to be sent, what was set aside, and another try for that."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from kiosk.commands.console import add_config, add_json, say, say_json, settings_of, table
from kiosk.commands.desk import perform
from kiosk.errors import UserError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    outbox = commands.add_parser("outbox", help="the queue on disk").add_subparsers(
        dest="what", required=True
    )
    counts = outbox.add_parser("status", help="how much waits, and since when")
    counts.set_defaults(action=show_outbox)
    aside = outbox.add_parser("quarantine", help="what was set aside, and why")
    aside.set_defaults(action=show_quarantine)
    again = outbox.add_parser("retry", help="send what was set aside once more")
    again.add_argument(
        "events", nargs="*", metavar="EVENT_ID", help="as `kiosk outbox quarantine` lists them"
    )
    again.add_argument("--all", action="store_true", help="everything that was set aside")
    again.set_defaults(action=retry_events)
    for parser in (counts, aside, again):
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


def show_quarantine(options: argparse.Namespace) -> int:
    """Every event that was set aside, the oldest first."""
    result = perform(settings_of(options), "outbox.quarantine")
    if options.json:
        say_json(result)
        return 0
    rows = [
        (event["seq"], event["event_id"], _moment(event["aside_ms"]), event["reason"])
        for event in result["events"]
    ]
    say(table(("seq", "event", "set aside", "reason"), rows))
    if result["quarantined"] > len(rows):
        say(f"and {result['quarantined'] - len(rows)} later ones")
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


def _moment(utc_ms: int | None) -> str:
    if utc_ms is None:
        return "-"
    return f"{datetime.fromtimestamp(utc_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
