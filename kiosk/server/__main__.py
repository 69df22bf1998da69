"""`kiosk-server`: parse the command line, check the start rules, serve until told to end."""

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
from kiosk.commands.console import complain, say
from kiosk.config import Journal
from kiosk.errors import KioskError, UserError
from kiosk.server import start
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
    tree = _Parser(prog="kiosk-server", description="Reference attendance server.")
    add = tree.add_argument
    add("--version", action="version", version=__version__)
    add("--store", required=True, metavar="URL", help="sqlite:///PATH of the records")
    add("--listen", default="127.0.0.1:8320", metavar="HOST:PORT", help="port 0: a free one")
    add("--cert", type=Path, metavar="FILE", help="TLS certificate chain (PEM)")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--client-ca", type=Path, metavar="FILE", help="demand client certificates of this CA")
    add("--token-file", type=Path, metavar="FILE", help="holds the bearer token; mode 0600")
    add("--threshold", type=_cosine, metavar="X", help="least cosine of a match, in every space")
    add("--keep-embeddings", action="store_true", help="keep them with the records")
    return tree


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
    """Run the server; 0 when told to end, 2 for the user's mistakes, 1 for failures."""
    options = parse(arguments)
    # The framework handles both while it serves, and raises them again when it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        serve(options)
    except KioskError as error:
        complain(f"kiosk-server: {error}")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
