"""`kiosk enrol` and `kiosk gallery`: who is known."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from kiosk.changeover import in_words
from kiosk.commands.console import add_config, add_json, complain, say, say_json, settings_of, table
from kiosk.commands.desk import perform


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    enrol = commands.add_parser("enrol", help="add a person from pictures")
    enrol.add_argument("person", metavar="PERSON", help="the id that the server knows them by")
    enrol.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="shows this person's face alone"
    )
    enrol.add_argument(
        "--force", action="store_true", help="even if a face or a picture is somebody else's"
    )
    add_config(enrol)
    add_json(enrol)
    enrol.set_defaults(action=enrol_person)
    gallery = commands.add_parser("gallery", help="who is enrolled").add_subparsers(
        dest="what", required=True
    )
    for name, explanation in (
        ("list", "everybody"),
        ("show", "one person"),
        ("remove", "forget one person"),
        ("verify", "read the sealed file again and compare"),
    ):
        parser = gallery.add_parser(name, help=explanation)
        if name in {"show", "remove"}:
            parser.add_argument("person", metavar="PERSON", help="the id they were enrolled under")
        add_config(parser)
        add_json(parser)
        parser.set_defaults(action=gallery_action)


def enrol_person(options: argparse.Namespace) -> int:
    """One face from each picture; nothing is enrolled unless all of them are usable."""
    from kiosk.clock import SystemClock
    from kiosk.config import Journal
    from kiosk.decide.gallery import Template
    from kiosk.journal import set_up
    from kiosk.state import template_document
    from kiosk.vision.picture import load_picture
    from kiosk.vision.pipeline import open_pipeline

    settings, clock = settings_of(options), SystemClock()
    set_up(Journal(level="warning"), clock=clock)
    # The file that the daemon uses, if it has measured; only the daemon writes into its folder.
    eyes = open_pipeline(
        settings.models,
        clock=clock,
        record=lambda _stage, _ms: None,
        choice_in=Path(settings.paths.state_dir),
        keep_choice=False,
    )
    templates, pictures = [], {}
    for path in options.images:
        face = eyes.face_to_enrol(load_picture(path), str(path))
        source = hashlib.sha256(path.read_bytes()).hexdigest()
        pictures[source] = str(path)
        templates += [
            template_document(Template(options.person, embedding, source))
            for embedding in face.embeddings
        ]
    result = perform(settings, "enrol", templates=templates, pictures=pictures, force=options.force)
    if options.json:
        say_json(result)
        return 0
    for warning in result["warnings"]:
        complain(f"kiosk enrol: {warning}")
    for person, count in result["people"].items():
        say(f"{person}: {count} face{'' if count == 1 else 's'} enrolled")
    return 0


def gallery_action(options: argparse.Namespace) -> int:
    """List, show, remove or verify, through the daemon if it runs."""
    arguments = {"person": options.person} if "person" in options else {}
    result = perform(settings_of(options), f"gallery.{options.what}", **arguments)
    if options.json:
        say_json(result)
        return 0
    match options.what:
        case "list":
            _say_people(result)
        case "show":
            rows = [(face["space"], face["source"]) for face in result["faces"]]
            say(table(("space", "SHA-256 of the picture"), rows))
        case "remove":
            say(f"{result['removed']}: removed")
        case _:
            say(f"{result['faces']} faces of {result['people']} people authenticate")
    return 0


def _say_people(result: dict[str, Any]) -> None:
    again = set(result["changeover"]["enrol_again"])
    rows = [
        (person, str(count), "must enrol again" if person in again else "")
        for person, count in result["people"].items()
    ]
    width = 3 if again else 2
    say(table(("person", "faces", "for the model in use")[:width], [row[:width] for row in rows]))
    for line in in_words({**result["changeover"], "enrol_again": None}):
        say(line)
