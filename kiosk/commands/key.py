"""`kiosk key`: the sign key for the server, the board's key, and the site's recovery key."""

from __future__ import annotations

import argparse
import base64
import binascii
import sys
from pathlib import Path

from kiosk.commands.console import add_config, add_json, complain, say, say_json, settings_of
from kiosk.errors import UserError

_KEY_BYTES = 32
_LONGEST_CODE = 200


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    key = commands.add_parser("key", help="sign key, board's key, recovery key")
    whats = key.add_subparsers(dest="what", required=True)
    show = whats.add_parser("show", help="what the server must be told of this kiosk, once")
    add_config(show)
    add_json(show)
    show.set_defaults(action=show_key)
    hand_in = whats.add_parser(
        "register", help="hand the key to the server; its one-time code on standard input"
    )
    add_config(hand_in)
    hand_in.set_defaults(action=register_key)
    wrap = whats.add_parser(
        "wrap", help="seal the secret under the board's own key (credential kiosk.board-key)"
    )
    add_config(wrap)
    wrap.set_defaults(action=wrap_key)
    make = whats.add_parser("make-recovery", help="make a site's recovery key, away from kiosks")
    make.add_argument("file", type=Path, metavar="FILE", help="takes the private half")
    make.set_defaults(action=make_recovery)
    recovery = whats.add_parser(
        "recovery", help="let the site's recovery key open this kiosk's card"
    )
    recovery.add_argument("public", metavar="PUBLIC", help="what make-recovery printed")
    add_config(recovery)
    recovery.set_defaults(action=set_recovery)


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


def register_key(options: argparse.Namespace) -> int:
    """Read a code, which no list of processes shows, and hand the key in for it."""
    from kiosk.registration import register
    from kiosk.state import read_identity

    settings = settings_of(options)
    code = sys.stdin.readline(_LONGEST_CODE).strip()
    if not code:
        raise UserError(
            "a code expected on standard input, got nothing",
            hint="`kiosk-server invite --store URL` prints one",
        )
    device, vault = read_identity(settings)
    register(settings.server, device, vault.sign_key, code)
    say(f"{settings.server.url} knows the key {settings.server.key_id} of {device}")
    return 0


def wrap_key(options: argparse.Namespace) -> int:
    """Seal `device.secret` under the board's key; the daemon must not run."""
    from kiosk.identity import wrap_secret
    from kiosk.state import open_state

    state = open_state(settings_of(options))
    try:
        wrap_secret(state.folder)
    finally:
        state.close()
    say("device.secret is sealed under this board's key: another board cannot open this card")
    complain("kiosk: the bare secret may still lie in unused blocks of a card that held it before")
    return 0


def make_recovery(options: argparse.Namespace) -> int:
    """Make a key pair: the private half into a new file, the public half printed."""
    from kiosk.vault import recovery_pair, write_atomic

    path: Path = options.file
    if path.exists():
        raise UserError(
            f"{path}: expected a new file, there is one already",
            hint="a recovery key that is overwritten opens nothing any more; name another",
        )
    private, public = recovery_pair()
    write_atomic(path, base64.b64encode(private) + b"\n")
    say(base64.b64encode(public).decode("ascii"))
    complain(f"kiosk: {path} opens the card of every kiosk that is given this key: keep it offline")
    return 0


def set_recovery(options: argparse.Namespace) -> int:
    """Leave the secret beside the queue, sealed for the recovery key; the daemon must not run."""
    from kiosk.identity import RECOVERY_FILE, leave_for_recovery
    from kiosk.state import open_state

    public = key_of(options.public, "PUBLIC")
    state = open_state(settings_of(options))
    try:
        leave_for_recovery(state.folder, public)
    finally:
        state.close()
    say(f"{RECOVERY_FILE} is written: that key's private half opens this card without its board")
    return 0


def key_of(text: str, what: str) -> bytes:
    """32 bytes of base64; UserError that names `what` for anything else."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise UserError(
            f"{what}: expected base64 of {_KEY_BYTES} bytes, got {len(text.strip())} characters",
            hint="`kiosk key make-recovery FILE` makes both halves",
        )
    return key
