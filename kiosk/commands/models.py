"""`kiosk models`: what the manifest knows, whether files are what it says, how fast they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kiosk.commands.console import add_json, complain, say, say_json, table
from kiosk.config import Models, Settings, load
from kiosk.errors import KioskError

if TYPE_CHECKING:
    from kiosk.vision.manifest import Manifest
    from kiosk.vision.measure import Measured

_MOST_THREADS = 16


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    models = commands.add_parser("models", help="model files").add_subparsers(
        dest="what", required=True
    )
    for name, explanation, action in (
        ("list", "everything in the manifest", list_models),
        ("check", "hashes and golden faces", check_models),
        ("profile", "how fast each candidate is here, and which is taken", profile_models),
    ):
        parser = models.add_parser(name, help=explanation)
        parser.add_argument("--models-dir", action="append", default=[], metavar="DIR")
        add_json(parser)
        parser.set_defaults(action=action)
        if name != "check":
            parser.add_argument(
                "--config", type=Path, metavar="FILE", help="whose [models] counts; default: none"
            )
        if name == "profile":
            parser.add_argument("--threads", type=_threads, metavar="N", help="default: configured")


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_MOST_THREADS} expected")
    return int(text)


def list_models(options: argparse.Namespace) -> int:
    """Every entry, whether its file is there, what the daemon makes of it, and its licence."""
    settings, models = _configured(options)
    from kiosk.vision.manifest import load_manifest

    manifest = load_manifest(models.extra_dirs)
    uses = {} if settings is None else _uses(settings, models, manifest)
    entries = manifest.entries
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
                    "use": uses.get(e.id),
                }
                for e in entries
            ]
        )
        return 0
    heads = ["id", "kind", "file", "dim", "licence", "use"]
    rows = [
        [e.id, e.kind, "present" if e.path.is_file() else "absent", str(e.dim or "-"), e.licence]
        for e in entries
    ]
    if settings is None:
        say(table(heads[:-1], rows))
        return 0
    say(table(heads, [[*row, uses.get(row[0], "")] for row in rows]))
    if not uses:
        say("Not measured yet: the daemon measures at its start, `kiosk models profile` now.")
    return 0


def _configured(options: argparse.Namespace) -> tuple[Settings | None, Models]:
    """The configuration if one is named, and its [models] with --models-dir added."""
    settings = None if options.config is None else load(options.config)
    models = Models() if settings is None else settings.models
    extra = (*models.extra_dirs, *options.models_dir)
    return settings, msgspec.structs.replace(models, extra_dirs=extra)


def _uses(settings: Settings, models: Models, manifest: Manifest) -> dict[str, str]:
    """What the daemon's last measurement under this configuration made of each candidate."""
    from kiosk.vision.choice_file import CHOICE_FILE
    from kiosk.vision.selection import choose, remembered

    if models.prefer == "exact":
        return {models.embedder: 'chosen: prefer = "exact"'}
    cache = Path(settings.paths.state_dir) / CHOICE_FILE
    measured = remembered(manifest, models, cache)
    if measured is None:
        return {}
    choice = choose(measured, models.prefer)
    uses = {m.id: f"refused: {m.refused}" for m in measured if m.refused}
    if choice.spare is not None:
        uses[choice.spare.id] = "fallback"
    return uses | {choice.chosen.id: f"chosen: {choice.reason}"}


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


def profile_models(options: argparse.Namespace) -> int:
    """Time every candidate on this machine, in turn, and say which is taken; 1 when none can be."""
    from kiosk.clock import SystemClock
    from kiosk.vision.canary import golden_for
    from kiosk.vision.cpu import read_cpu
    from kiosk.vision.manifest import load_manifest
    from kiosk.vision.measure import PROFILE, candidates, measure

    models = _configured(options)[1]
    threads = options.threads or models.threads
    entries = candidates(load_manifest(models.extra_dirs), models.embedder)
    faces, clock = golden_for(entries), SystemClock()
    found, _ = measure(entries, faces, threads=threads, clock=clock, effort=PROFILE)
    head = {"cpu": read_cpu().document(), "threads": threads, "space": entries[0].space}
    if options.json:
        documents = [msgspec.to_builtins(m) for m in found]
        verdict: dict[str, Any] = {"chosen": None, "reason": None}
        try:
            verdict = _verdict(models, found)
        except KioskError as error:
            verdict["reason"] = str(error)
        say_json({**head, "prefer": models.prefer, "candidates": documents, **verdict})
        return 0 if verdict["chosen"] else 1
    _say_profile(head, found)
    verdict = _verdict(models, found)
    say(f"Taken: {verdict['chosen']}, {verdict['reason']}.")
    return 0


def _verdict(models: Models, found: list[Measured]) -> dict[str, Any]:
    from kiosk.vision.selection import choose

    if models.prefer == "exact":
        return {"chosen": models.embedder, "reason": 'prefer = "exact"'}
    choice = choose(found, models.prefer)
    return {"chosen": choice.chosen.id, "reason": choice.reason}


def _say_profile(head: dict[str, Any], found: list[Measured]) -> None:
    cpu = head["cpu"]
    say(f"{cpu['name']} ({cpu['machine']}: {' '.join(cpu['features'])}), {head['threads']} threads")
    rows = [
        [
            m.id,
            *(f"{v:.2f}" if not m.refused else "-" for v in (m.min_ms, m.median_ms, m.p95_ms)),
            *("-" if v is None else f"{v:.5f}" for v in (m.cosine, m.mean_cosine)),
        ]
        for m in found
    ]
    say(table(("model", "min ms", "median", "p95", "cosine, least", "mean"), rows))
    for m in found:
        if m.refused:
            complain(f"{m.id}: {m.refused}")
