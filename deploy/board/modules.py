"""Modules of the operating system: asked for by their import, installed where missing."""

from __future__ import annotations

from collections.abc import Callable

from board.checks import imports
from board.commands import run, there
from board.refusal import RefusedError

PACKAGES = {
    "systemd": "python3-systemd",
    "picamera2": "python3-picamera2",
    "lgpio": "python3-lgpio",
}
_WITHOUT = {
    "systemd": ": it goes on, and journalctl -x and KIOSK_EVENT= find nothing of the kiosk's"
}


def see_to(wanted: dict[str, str], say: Callable[[str], None]) -> dict[str, str]:
    """Install what does not import and is wanted; of each module what became of it.

    `wanted`, by module: "needed", the configuration cannot do without; "wanted", it is better
    with; "not needed". RefusedError names one that is needed and cannot be had.
    """
    outcome = {}
    for name, how in wanted.items():
        if imports(name):
            outcome[name] = "there"
            continue
        outcome[name] = how if how == "not needed" else _install(name, say)
        if outcome[name] == "installed":
            continue
        if how == "needed":
            raise RefusedError(
                f"{PACKAGES[name]}: the configuration needs it, and it cannot be had:"
                f" {outcome[name]}",
                "install it by hand, or change the configuration",
            )
        meaning = _WITHOUT.get(name, "") if how == "wanted" else ""
        say(f"{PACKAGES[name]}: absent ({outcome[name]}){meaning}")
    return outcome


def _install(name: str, say: Callable[[str], None]) -> str:
    package = PACKAGES[name]
    if not there("apt-get"):
        return "there is no apt-get here"
    say(f"installing {package} from the operating system")
    environ = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "-q", "--no-install-recommends", package)
    done = run(*install, environ=environ)
    if done.returncode != 0:
        # A list of packages that is old, or none yet.
        run("apt-get", "update", "-q", environ=environ)
        done = run(*install, environ=environ)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"apt-get ended with {done.returncode}"
    return "installed" if imports(name) else f"{package} is installed, but does not import"
