"""The configuration while the daemon runs: which one is in force, and reading it anew."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kiosk.config import Settings, load
from kiosk.errors import ConfigError, KioskError
from kiosk.lastgood import keep, merged, tell_refused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from.

    `refused` says why the file's own are not in force, "" where they are; `again` is set when the
    file is to be read anew.
    """

    path: Path
    refused: str
    again: threading.Event


class Reloader:
    """Holds the settings in force, and those of the file against them when it is asked to.

    Without an origin, as in a program that made its settings itself, nothing is ever read.
    """

    settings: Settings
    refused: str

    def __init__(
        self, settings: Settings, origin: Origin | None, apply: Callable[[Settings], None]
    ) -> None:
        self.settings, self._origin, self._apply = settings, origin, apply
        self.refused = origin.refused if origin else ""
        if self.refused:
            tell_refused(self.refused)

    def ready(self) -> None:
        """The daemon works with what the file says: that is worth keeping."""
        if self._origin is not None and not self.refused:
            keep(self._origin.path, Path(self.settings.paths.state_dir))

    def look(self) -> None:
        """Read the file, if somebody asked for it; one that does not check changes nothing."""
        if self._origin is None or not self._origin.again.is_set():
            return
        self._origin.again.clear()
        try:
            new = load(self._origin.path)
        except KioskError as error:
            problems = error.problems if isinstance(error, ConfigError) else ()
            self.refused = " | ".join(problems) or str(error)
            tell_refused(self.refused)
            return
        self.refused = ""
        self.settings, live, waiting = merged(self.settings, new)
        self._apply(self.settings)
        keep(self._origin.path, Path(self.settings.paths.state_dir))
        facts = {
            "changed": ", ".join(live) or "none",
            "needs_restart": ", ".join(waiting) or "none",
        }
        log.warning("config.reloaded", extra={"fields": facts})
