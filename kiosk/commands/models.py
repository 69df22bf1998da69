"""`kiosk models`: what the manifest knows, and whether the files are what it says."""

from __future__ import annotations

import argparse

from kiosk.commands.console import add_json, complain, say, say_json, table
from kiosk.errors import KioskError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    models = commands.add_parser("models", help="model files").add_subparsers(
        dest="what", required=True
    )
    for name, explanation, action in (
        ("list", "everything in the manifest", list_models),
        ("check", "hashes and golden faces", check_models),
    ):
        parser = models.add_parser(name, help=explanation)
        parser.add_argument("--models-dir", action="append", default=[], metavar="DIR")
        add_json(parser)
        parser.set_defaults(action=action)


def list_models(options: argparse.Namespace) -> int:
    """Every entry, whether its file is there, and its licence."""
    from kiosk.vision.manifest import load_manifest

    entries = load_manifest(options.models_dir).entries
    if options.json:
        say_json(
            [
                {
                    "id": e.id,
                    "kind": e.kind,
                    "file": str(e.path),
                    "present": e.path.is_file(),
                    "shipped": e.shipped,
                    "sha256": e.sha256,
                    "licence": e.licence,
                    "source": e.source,
                    "space": e.space,
                    "dim": e.dim,
                    "threshold": e.threshold,
                }
                for e in entries
            ]
        )
        return 0
    rows = [
        (e.id, e.kind, "present" if e.path.is_file() else "absent", str(e.dim or "-"), e.licence)
        for e in entries
    ]
    say(table(("id", "kind", "file", "dim", "licence"), rows))
    return 0


def check_models(options: argparse.Namespace) -> int:
    """Check every file that is there and every one that must be; 1 when any fails."""
    from kiosk.vision.canary import check_entry
    from kiosk.vision.manifest import load_manifest

    results = []
    for entry in load_manifest(options.models_dir).entries:
        if not entry.shipped and not entry.path.is_file():
            continue
        try:
            results.append({"id": entry.id, "ok": True, "found": check_entry(entry)})
        except KioskError as error:
            results.append({"id": entry.id, "ok": False, "found": str(error)})
    for result in results:
        if options.json:
            say_json(result)
        elif result["ok"]:
            say(f"{result['id']}: {result['found']}")
        else:
            complain(f"{result['id']}: {result['found']}")
    return 0 if all(result["ok"] for result in results) else 1
