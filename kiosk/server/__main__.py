"""`kiosk-server`: start rules, then uvicorn."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

from kiosk.config import is_loopback
from kiosk.errors import KioskError, UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="kiosk-server", description="Reference attendance server")
    parser.add_argument("--store", required=True, metavar="sqlite:///PATH")
    parser.add_argument("--listen", default="127.0.0.1:8320", metavar="HOST:PORT")
    parser.add_argument("--cert", type=Path, help="TLS certificate chain (PEM)")
    parser.add_argument("--key", type=Path, help="its private key (PEM)")
    parser.add_argument("--client-ca", type=Path, help="demand client certificates of this CA")
    parser.add_argument("--token-file", type=Path, help="bearer token, mode 0600")
    parser.add_argument("--threshold", type=float, help="one match threshold for every space")
    parser.add_argument("--keep-embeddings", action="store_true", help="keep them with records")
    return parser.parse_args(arguments)


def check_start(options: argparse.Namespace) -> tuple[str, int]:
    """Host and port; UserError when the address is not allowed as asked."""
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--listen HOST:PORT expected, got {options.listen!r}")
    if bool(options.cert) != bool(options.key):
        raise UserError("--cert and --key: both or neither expected")
    for path in (options.cert, options.key, options.client_ca):
        if path is not None and not path.is_file():
            raise UserError(f"{path}: a PEM file expected, nothing is there")
    if options.client_ca and not options.cert:
        raise UserError("--client-ca: --cert and --key expected with it")
    if not is_loopback(f"https://{host}") and not (options.cert and options.token_file):
        raise UserError(
            f"--listen {options.listen}: an address beyond loopback needs TLS and a token",
            hint="add --cert, --key and --token-file",
        )
    return host.strip("[]"), int(port)


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    host, port = check_start(options)
    import ssl

    import uvicorn

    from kiosk.server.app import Rules, create_app, read_token
    from kiosk.server.store import Store, path_of

    token = read_token(options.token_file) if options.token_file else None
    store = Store(path_of(options.store))
    rules = Rules(token, options.threshold, options.keep_embeddings)
    config = uvicorn.Config(
        create_app(store, rules),
        log_level="warning",
        ssl_certfile=options.cert,
        ssl_keyfile=options.key,
        ssl_ca_certs=str(options.client_ca) if options.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.client_ca else ssl.CERT_NONE,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    # uvicorn raises the signal again once it has ended; SIGTERM is a clean end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = _listener(host, port)
    scheme = "https" if options.cert else "http"
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on {scheme}://{shown}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    finally:
        store.close()
    return 0


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # From the moment the address is printed a connection waits instead of being refused.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(f"--listen {host}:{port}: a free address expected, {error}") from error
    return listener


def main(arguments: list[str] | None = None) -> int:
    """Run the server; 2 for the user's mistakes."""
    options = parse(arguments)
    try:
        return serve(options)
    except KioskError as error:
        print(f"kiosk-server: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
