"""`kiosk models`: what the manifest knows, whether files are what it says, how fast they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kiosk.commands.console import (
    add_json,
    add_models_dir,
    complain,
    say,
    say_json,
    table,
)
from kiosk.commands.lab import adopt
from kiosk.commands.lab.options import add_state, own_models, state_folder
from kiosk.config import Models, Settings, load
from kiosk.errors import KioskError, UserError

if TYPE_CHECKING:
    from kiosk.vision.manifest import Manifest, ModelEntry
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
        add_models_dir(parser)
        add_json(parser)
        parser.set_defaults(action=action)
        add_state(parser, reads=True)
        if name == "check":
            parser.add_argument("--used", action="store_true", help="only what a daemon may load")
        if name == "profile":
            parser.add_argument("--threads", type=_threads, metavar="N", help="default: configured")
    adopt.register(models)
    remove = models.add_parser("remove", help="one that was added")
    remove.add_argument("id", metavar="ID", help="as `kiosk models list` shows it")
    add_state(remove)
    add_json(remove)
    remove.set_defaults(action=remove_model)


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_MOST_THREADS} expected")
    return int(text)


def list_models(options: argparse.Namespace) -> int:
    """Every entry, whether its file is there, what the daemon makes of it, and its licence."""
    settings, models, manifest = _configured(options)
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
                    "threshold": e.threshold if e.usable else None,
                    "usable": e.usable,
                    "use": uses.get(e.id),
                }
                for e in entries
            ]
        )
        return 0
    heads = ["id", "kind", "file", "space", "dim", "threshold", "licence", "use"]
    rows = [
        [
            e.id,
            e.kind,
            "present" if e.path.is_file() else "absent",
            e.space or "-",
            str(e.dim or "-"),
            _threshold_words(e),
            e.licence,
        ]
        for e in entries
    ]
    if settings is None:
        say(table(heads[:-1], rows))
        return 0
    say(table(heads, [[*row, uses.get(row[0], "")] for row in rows]))
    if not uses:
        say("Not measured yet: the daemon measures at its start, `kiosk models profile` now.")
    return 0


def _threshold_words(entry: ModelEntry) -> str:
    if entry.kind == "detector":
        return "-"
    return f"{entry.threshold:.4f}" if entry.usable else "not set"


def _configured(options: argparse.Namespace) -> tuple[Settings | None, Models, Manifest]:
    """The configuration if one is named, its [models] with --models-dir added, and all it knows.

    With --state-dir there is none, and what was added to that folder is known.
    """
    from kiosk.vision.manifest import load_manifest

    settings = None if options.config is None else load(options.config)
    models = Models() if settings is None else settings.models
    models = msgspec.structs.replace(models, extra_dirs=(*models.extra_dirs, *options.models_dir))
    state_dir = state_folder(options) if settings is None else Path(settings.paths.state_dir)
    manifest = load_manifest(models.extra_dirs, state_dir)
    for why in manifest.aside:
        complain(f"left out: {why}")
    return settings, models, manifest


def _uses(settings: Settings, models: Models, manifest: Manifest) -> dict[str, str]:
    """What the daemon's last measurement under this configuration made of each candidate."""
    from kiosk.vision.choice_file import ALSO_CHOICE_FILE, CHOICE_FILE

    folder = Path(settings.paths.state_dir)
    uses = _uses_of_one(models, manifest, folder / CHOICE_FILE)
    if models.also:
        second = msgspec.structs.replace(models, embedder=models.also)
        also = _uses_of_one(second, manifest, folder / ALSO_CHOICE_FILE)
        uses |= {name: f"models.also: {use}" for name, use in also.items()}
    return uses


def _uses_of_one(models: Models, manifest: Manifest, cache: Path) -> dict[str, str]:
    from kiosk.vision.selection import choose, remembered

    if not manifest.get(models.embedder, "embedder").usable:
        return {models.embedder: "configured, but it has no threshold"}
    if models.prefer == "exact":
        return {models.embedder: 'chosen: prefer = "exact"'}
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

    _, models, manifest = _configured(options)
    here = [entry for entry in manifest.entries if entry.shipped or entry.path.is_file()]
    results = []
    for entry in _loadable(models, manifest) if options.used else here:
        try:
            results.append({"id": entry.id, "ok": True, "found": check_entry(entry)})
        except KioskError as error:
            results.append({"id": entry.id, "ok": False, "found": str(error)})
    if options.json:
        say_json(results)
    for result in results if not options.json else ():
        if result["ok"]:
            say(f"{result['id']}: {result['found']}")
        else:
            complain(f"{result['id']}: {result['found']}")
    return 0 if all(result["ok"] for result in results) else 1


def _loadable(models: Models, manifest: Manifest) -> list[ModelEntry]:
    """Whatever a daemon with this configuration loads, or may choose from."""
    from kiosk.vision.selection import wanted

    entries = [manifest.get(models.detector, "detector")]
    for name in filter(None, (models.embedder, models.also)):
        if models.prefer == "exact":
            entries.append(manifest.get(name, "embedder"))
        else:
            entries += wanted(manifest, msgspec.structs.replace(models, embedder=name))
    return entries


def profile_models(options: argparse.Namespace) -> int:
    """Time every candidate on this machine, in turn, and say which is taken; 1 when none can be."""
    from kiosk.clock import SystemClock
    from kiosk.vision.canary import golden_for
    from kiosk.vision.cpu import read_cpu
    from kiosk.vision.measure import PROFILE, candidates, measure

    _, models, manifest = _configured(options)
    threads = options.threads or models.threads
    entries = candidates(manifest, models.embedder)
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


def remove_model(options: argparse.Namespace) -> int:
    """Take out a model that was added; UserError while the configuration needs it."""
    from kiosk.vision.manifest import manifest_of

    own = own_models(options)
    entry = own.get(options.id)
    if options.config is not None:
        settings = load(options.config)
        manifest = manifest_of(settings)
        # One that is set aside is not what the configuration means by its id.
        if entry in manifest.entries:
            _check_free(entry, settings.models, manifest)
    own.remove(entry.id)
    if options.json:
        say_json({"removed": entry.id, "file": str(entry.path)})
        return 0
    say(f"{entry.id}: removed, {entry.path}")
    return 0


def _check_free(entry: ModelEntry, models: Models, manifest: Manifest) -> None:
    """UserError for a model that is configured, or the last FP32 of one that is."""
    from kiosk.vision.manifest import precision_of

    for key, name in (("embedder", models.embedder), ("also", models.also)):
        if name == entry.id:
            raise UserError(
                f"a model that is not in use expected, models.{key} names {entry.id}",
                hint="take it out of the configuration and restart the daemon first",
            )
        fp32 = [
            other.id
            for other in manifest.entries
            if name
            and other.space == manifest.get(name, "embedder").space
            and precision_of(other.id) == "fp32"
            and other.path.is_file()
        ]
        if fp32 == [entry.id]:
            raise UserError(
                f"a model that is not in use expected, {entry.id} is what models.{key} ({name})"
                " falls back on",
                hint="take that out of the configuration and restart the daemon first",
            )
