"""`make deploy` and its like: `python -m sender COMMAND --pi "HOST..."`; `release` has none."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sender import fleet, push
from sender.commit import commit_of
from sender.hosts import Host, host_named
from sender.refusal import DeployError
from sender.release import release

# All but the end of a line and the tabulator.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "?")
_CHECKOUT = Path(__file__).resolve().parent.parent.parent


def main() -> int:
    """Parse and run; 0 done, 1 failed or went back, 2 a mistake in what was said."""
    options = _parser().parse_args()
    try:
        return _run(options)
    except DeployError as error:
        sys.stderr.write(f"{_harmless(str(error))}\n")
        return 1
    except KeyboardInterrupt:
        goes_on = "what runs on the Pi goes on, its verdict comes by itself"
        left = "nothing was replaced" if options.command == "release" else goes_on
        sys.stderr.write(f"interrupted: {left}\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make", description=__doc__)
    parser.add_argument(
        "command",
        choices=(
            *("deploy", "rollback", "status", "doctor", "logs", "enrol", "uninstall"),
            "release",
        ),
    )
    for name in ("pi", "user", "port", "config", "health-s", "person", "images", "code", "words"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--out", default="dist")
    parser.add_argument("--dirty", action="store_true")
    parser.add_argument("--lose-events", action="store_true")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.command == "release":
        commit = commit_of(_CHECKOUT, allow_dirty=options.dirty)
        release(_CHECKOUT, commit, Path(options.out).resolve(), _plain)
        return 0
    names = options.pi.split()
    if not names:
        raise DeployError(f"expected PI=host, or several: make {options.command} PI='a b c'")
    said = {key: getattr(options, key) for key in ("user", "port", "config", "health_s")}
    hosts = [host_named(name, _CHECKOUT / "deploy/hosts", said) for name in names]
    sender = push.Sender(
        _CHECKOUT,
        commit_of(_CHECKOUT, allow_dirty=options.dirty or options.command != "deploy"),
        who=getpass.getuser(),
        origin=socket.gethostname(),
        code=options.code,
    )
    table = {"status": fleet.status, "doctor": fleet.doctor}
    if options.command in table:
        return table[options.command](sender, hosts, _plain)
    if options.command == "logs":
        return fleet.logs(sender, _only(hosts), options.words)
    if options.command == "enrol":
        pictures = [Path(word) for word in options.images.split()]
        return fleet.enrol(sender, _only(hosts), options.person, pictures, _plain)
    say = _teller()
    works: dict[str, Callable[[Host], bool]] = {
        "deploy": lambda host: push.deploy(sender, host, lambda text: say(host, text)),
        "rollback": lambda host: push.rollback(sender, host, lambda text: say(host, text)),
        "uninstall": lambda host: push.uninstall(
            sender, host, lambda text: say(host, text), lose_events=options.lose_events
        ),
    }
    return fleet.one_after_the_other(hosts, works[options.command], say)


def _only(hosts: list[Host]) -> Host:
    if len(hosts) != 1:
        raise DeployError(f"expected one PI=host, got {len(hosts)}")
    return hosts[0]


def _plain(text: str) -> None:
    sys.stdout.write(f"{_harmless(text)}\n")
    sys.stdout.flush()


def _harmless(text: str) -> str:
    """The text without what a terminal obeys: much of it is the word of a Pi."""
    return text.translate(_CONTROLS)


def _teller() -> Callable[[Host, str], None]:
    """A line with the seconds since the start and the Pi's name before it."""
    began = time.monotonic()

    def say(host: Host, text: str) -> None:
        _plain(f"{time.monotonic() - began:6.1f} s  {host.name}: {text}")

    return say


if __name__ == "__main__":
    sys.exit(main())
