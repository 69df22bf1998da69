"""`kiosk-server`: parse the command line, then serve until told to end, or import a file."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import socket
import ssl
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from kiosk import __version__, journal
from kiosk.clock import SystemClock
from kiosk.commands.console import complain, say, say_json
from kiosk.config import Journal
from kiosk.errors import KioskError, UserError
from kiosk.server import start
from kiosk.server.inviting import invite
from kiosk.server.store import Store, path_of

if TYPE_CHECKING:
    from fastapi import FastAPI

_END_S = 1
_KEEP_ALIVE_S = 30
# No browser is to guess what a reply is, or to hand it to another site's page.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Parser(argparse.ArgumentParser):
    """Usage mistakes are one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(UserError.exit_status, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line as options; exits with 2 for a mistake in it."""
    return parser().parse_args(arguments)


def parser() -> argparse.ArgumentParser:
    """Every option."""
    tree = _Parser(
        prog="kiosk-server",
        description="Reference attendance server.",
        epilog="kiosk-server import --help: take what `kiosk outbox export` wrote;"
        " kiosk-server invite --help: a code for a new kiosk.",
    )
    add = tree.add_argument
    add("--version", action="version", version=__version__)
    _add_records(tree)
    add("--listen", default="127.0.0.1:8320", metavar="HOST:PORT", help="port 0: a free one")
    add("--cert", type=Path, metavar="FILE", help="TLS certificate chain (PEM)")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--client-ca", type=Path, metavar="FILE", help="demand client certificates of this CA")
    add("--token-file", type=Path, metavar="FILE", help="holds the bearer token; mode 0600")
    return tree


def parse_import(arguments: list[str]) -> argparse.Namespace:
    """The options of `kiosk-server import`; exits with 2 for a mistake in them."""
    return import_parser().parse_args(arguments)


def import_parser() -> argparse.ArgumentParser:
    """Every option of the import."""
    tree = _Parser(
        prog="kiosk-server import",
        description="Record what `kiosk outbox export` wrote; what is known is left as it is.",
    )
    tree.add_argument("file", type=Path, metavar="FILE", help="what the kiosk exported")
    _add_records(tree)
    tree.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="take unsigned messages of kiosks that have no key here",
    )
    tree.add_argument("--json", action="store_true", help="print the counts as JSON")
    return tree


def parse_invite(arguments: list[str]) -> argparse.Namespace:
    """The options of `kiosk-server invite`; exits with 2 for a mistake in them."""
    tree = _Parser(
        prog="kiosk-server invite",
        description="Print a code with which one kiosk registers its key, once.",
    )
    tree.add_argument("--store", required=True, metavar="URL", help="sqlite:///PATH of the records")
    tree.add_argument("--minutes", type=int, default=60, metavar="N", help="it works for so long")
    return tree.parse_args(arguments)


def _add_records(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--store", required=True, metavar="URL", help="sqlite:///PATH of the records")
    add("--threshold", type=_cosine, metavar="X", help="least cosine of a match, in every space")
    add("--keep-embeddings", action="store_true", help="keep them with the records")


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a cosine from -1 to 1, got {text!r}")
    return value


def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C, both of which end it by SystemExit(0)."""
    address = start.resolve(options.listen)
    tls = start.tls_of(options.cert, options.key, options.client_ca)
    token = start.read_token(options.token_file) if options.token_file else None
    start.check_exposure(address, tls, token)
    path = path_of(options.store)
    # Late, because it takes a second to load, and a refusal need not wait for it.
    from kiosk.server.app import Rules, create_app

    clock = SystemClock()
    journal.set_up(Journal(), clock=clock)
    store = Store(path, clock=clock)
    try:
        rules = Rules(token, options.threshold, options.keep_embeddings)
        app = create_app(store, rules, clock=clock)
        with start.bind(address) as listener:
            _run(app, listener, tls)
    finally:
        store.close()


def take(options: argparse.Namespace) -> int:
    """Import a file; 1 when a line of it was not recorded."""
    from kiosk.server.importing import import_file
    from kiosk.server.matching import Matcher
    from kiosk.server.reception import Reception
    from kiosk.vision.manifest import load_manifest

    path = path_of(options.store)
    if not path.is_file():
        raise UserError(
            f"--store {path}: expected the file of a server, there is none",
            hint="name the store that the server runs on, or start the server once: its store"
            " has the keys that prove the messages",
        )
    clock = SystemClock()
    # What becomes of each line is told here; of the records' own journal only what is amiss.
    journal.set_up(Journal(level="error"), clock=clock)
    store = Store(path, clock=clock)
    try:
        matcher = Matcher(store, load_manifest().entries, options.threshold)
        reception = Reception(store, matcher, options.keep_embeddings)
        counts = import_file(
            options.file, reception, unsigned_allowed=options.allow_unsigned, tell=complain
        )
    finally:
        store.close()
    if options.json:
        say_json(counts)
    else:
        say(", ".join(f"{number} {what}" for what, number in counts.items()))
    return 1 if counts["rejected"] or counts["bad"] else 0


def _run(app: FastAPI, listener: socket.socket, tls: start.Tls | None) -> None:
    import uvicorn

    from kiosk.server.connection import MAX_CONNECTIONS, Connection

    class Announcing(uvicorn.Server):
        """Says where it listens once it does, and once a signal ends it cleanly."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                say(f"listening on {start.url_of(listener, tls)}")
                sys.stdout.flush()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Before the framework cancels their tasks, which it would log as faults.
            asyncio.get_running_loop().call_later(_END_S / 2, self._cut)
            await super().shutdown(sockets)

        def _cut(self) -> None:
            """Leave those who do not take their answers, or their farewell in TLS."""
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        headers=list(_HEADERS.items()),
        # Beyond it nobody owes anything, and whoever comes is told to come again.
        limit_concurrency=MAX_CONNECTIONS + 1,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_END_S,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
    )
    Announcing(config).run(sockets=[listener])


def _end(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def main(arguments: list[str] | None = None) -> int:
    """Run the server, or import a file; 0 when done, 2 for the user's mistakes, 1 for failures."""
    given = sys.argv[1:] if arguments is None else arguments
    others = {"import": (parse_import, take), "invite": (parse_invite, invite)}
    parsed, action = others.get(given[0] if given else "", (parse, None))
    options = parsed(given[1:] if action else given)
    # The framework handles both while it serves, and raises them again when it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        if action is not None:
            return action(options)
        serve(options)
    except KioskError as error:
        complain(f"kiosk-server: {error}")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
