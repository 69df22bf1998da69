"""`kiosk key show`: the sign key, to be registered at the server."""

from __future__ import annotations

import argparse
import base64

from kiosk.commands.console import add_config, add_json, complain, say, say_json, settings_of


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    key = commands.add_parser("key", help="the sign key").add_subparsers(dest="what", required=True)
    show = key.add_parser("show", help="what the server must be told of this kiosk, once")
    add_config(show)
    add_json(show)
    show.set_defaults(action=show_key)


def show_key(options: argparse.Namespace) -> int:
    """Device id, key id and key, with the daemon running or not; the warning goes to stderr."""
    from kiosk.state import read_identity

    settings = settings_of(options)
    device, vault = read_identity(settings)
    key = base64.b64encode(vault.sign_key).decode("ascii")
    key_id = settings.server.key_id
    complain("kiosk: this key is a secret: hand it to the server once, and keep it nowhere else")
    if not key_id:
        complain("kiosk: server.key_id is empty, so nothing is signed; set the id you register")
    if options.json:
        say_json({"device": device, "key_id": key_id or None, "key": key})
        return 0
    say(f"device  {device}")
    say(f"key id  {key_id or '(none)'}")
    say(f"key     {key}")
    return 0
