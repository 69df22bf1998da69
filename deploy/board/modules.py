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


def see_to(needed: dict[str, bool], say: Callable[[str], None]) -> dict[str, str]:
    """Install what does not import; of each module what became of it.

    `needed`: by module, whether the configuration cannot do without. RefusedError names one that
    cannot be had.
    """
    absent = [name for name in needed if not imports(name)]
    if not absent:
        return dict.fromkeys(needed, "there")
    outcome = {name: "there" for name in needed if name not in absent}
    for name in absent:
        outcome[name] = _install(name, say) if there("apt-get") else "no apt-get here"
        if outcome[name] == "installed":
            continue
        if needed[name]:
            raise RefusedError(
                f"{PACKAGES[name]}: the configuration needs it, and it cannot be had:"
                f" {outcome[name]}",
                "install it by hand, or change the configuration",
            )
        say(f"{PACKAGES[name]}: not there, and not needed ({outcome[name]})")
    return outcome


def _install(name: str, say: Callable[[str], None]) -> str:
    package = PACKAGES[name]
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
