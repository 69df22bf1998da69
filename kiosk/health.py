"""`kiosk doctor`'s checks: what was found, and what to do about it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from kiosk import config
from kiosk.changeover import in_words
from kiosk.clock import SystemClock, has_rtc, time_service
from kiosk.commands.desk import perform
from kiosk.commands.outbox import disk_words, queue_words
from kiosk.config import Settings
from kiosk.control import ask, daemon_listens
from kiosk.errors import CameraError, KioskError, LinkDownError, UplinkPausedError
from kiosk.files import AS_THE_USER, lacks, pem_problem, replaceable_problem
from kiosk.folder import folder_problem
from kiosk.lastgood import load_or_last
from kiosk.outbox.room import FILLING
from kiosk.people import AS_SAVED
from kiosk.reach import reach
from kiosk.state import OUTBOX_FILE
from kiosk.types import Trust
from kiosk.vision.canary import check_entry
from kiosk.vision.choice_file import CHOICE_FILE
from kiosk.vision.manifest import Manifest, ModelEntry, manifest_of
from kiosk.vision.pipeline import check_embedders
from kiosk.vision.selection import choose, remembered

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    what: str
    verdict: Verdict
    found: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """The JSON form."""
        return asdict(self)


def examine(path: Path) -> list[Finding]:
    """Every check that can be made here and now; without a configuration those that need none.

    Where the file does not check, the daemon goes on with the last one that did, and is looked at
    by that.
    """
    findings = [_software(), _clock(), _liveness()]
    try:
        settings = config.load(path)
        findings.append(Finding("configuration", "ok", str(path)))
    except KioskError as error:
        problems = getattr(error, "problems", ()) or (str(error),)
        findings += [Finding("configuration", "failed", text) for text in problems]
        try:
            settings = load_or_last(path).settings
        except KioskError:
            return findings
        findings.append(Finding("last configuration", "ok", "in force: the last one that checked"))
    findings += [*_models(settings), *_folders(settings), *_figures(settings), _camera(settings)]
    findings += [*_daemon(settings), *_certificates(settings), *_server(settings)]
    return [*findings, *_gallery(settings)]


def _software() -> Finding:
    names = ("onnxruntime", "numpy", "opencv-python-headless", "requests", "cryptography")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return Finding("software", "ok", f"Python {platform.python_version()}, {versions}")


def _clock() -> Finding:
    rtc = "with" if has_rtc() else "without"
    board = f"on a board {rtc} a clock of its own"
    if SystemClock().now().trust is Trust.SYNCED:
        return Finding("clock", "ok", f"synchronised, {board}")
    if service := time_service():
        return Finding(
            "clock",
            "warning",
            f"not synchronised yet, though a time service is at work ({service}), {board}",
            "see whether it reaches its time server: timedatectl timesync-status, chronyc tracking",
        )
    return Finding(
        "clock",
        "warning",
        f"not synchronised and no time service at work, {board}: times are sent as estimates",
        "systemctl enable --now systemd-timesyncd",
    )


def _liveness() -> Finding:
    return Finding(
        "liveness",
        "warning",
        "not measured: a photograph of a person is not told from the person",
        "put the kiosk where somebody would notice a photograph",
    )


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        manifest, models = manifest_of(settings), settings.models
        yield _checked(manifest.get(models.detector, "detector"))
        for name in filter(None, (models.embedder, models.also)):
            yield _checked(manifest.get(name, "embedder"))
        check_embedders(manifest, models)
        yield _chosen(settings, manifest)
    except KioskError as error:
        yield Finding("models", "failed", error.message, error.hint)


def _checked(entry: ModelEntry) -> Finding:
    what = f"model {entry.id}"
    try:
        return Finding(what, "ok", check_entry(entry))
    except KioskError as error:
        return Finding(what, "failed", error.message, error.hint)


def _chosen(settings: Settings, manifest: Manifest) -> Finding:
    """Which embedder the daemon takes on this machine, as far as it is known already."""
    what, models = "model in use", settings.models
    if models.prefer == "exact":
        return Finding(what, "ok", f'{models.embedder}: prefer = "exact"')
    cache = Path(settings.paths.state_dir) / CHOICE_FILE
    measured = remembered(manifest, models, cache)
    if measured is None:
        return Finding(what, "ok", "not measured yet: the daemon measures at its start")
    choice = choose(measured, models.prefer)
    found = f"{choice.chosen.id}, {choice.reason}"
    refused = [f"{m.id}: {m.refused}" for m in measured if m.refused]
    if refused:
        return Finding(what, "warning", f"{found}; refused {' | '.join(refused)}")
    return Finding(what, "ok", found)


def _folders(settings: Settings) -> Iterator[Finding]:
    paths = settings.paths
    for what, text in (("state folder", paths.state_dir), ("runtime folder", paths.runtime_dir)):
        folder = Path(text)
        try:
            nearest = next(p for p in (folder, *folder.parents) if p.exists())
        except OSError as error:
            yield Finding(what, "failed", f"{folder}: {error.strerror}", AS_THE_USER)
            continue
        problem = folder_problem(folder, _owner(paths.state_dir)) if nearest == folder else None
        if problem is not None:
            yield Finding(what, "failed", f"{folder}: {problem[0]}", problem[1])
        elif nearest.is_dir() and os.access(nearest, os.W_OK):
            yield Finding(what, "ok", f"{folder} can be written")
        else:
            found = f"{folder} cannot be written by this user"
            yield Finding(what, "failed", found, AS_THE_USER)


def _owner(state_dir: str) -> int | None:
    """Whose the folders should be: root looks for the kiosk's user, to whom the state belongs."""
    state = Path(state_dir)
    return state.stat().st_uid if os.geteuid() == 0 and state.is_dir() else None


def _figures(settings: Settings) -> Iterator[Finding]:
    """Whether the file of figures can be kept, where one is asked for."""
    file = settings.metrics.file
    if not file:
        return
    problem = replaceable_problem(Path(file), Path(settings.paths.state_dir))
    if problem is None:
        yield Finding("figures", "ok", f"{file} can be written")
    else:
        advice = "make the folder, or give it to the kiosk's user: chown, chmod"
        yield Finding("figures", "failed", f"metrics.file = {file!r}: {problem}", advice)


def _camera(settings: Settings) -> Finding:
    """Whether there is one; it is not opened, for the daemon may have it."""
    camera = settings.camera
    match camera.source:
        case "replay":
            paths = [replay.path for replay in camera.replay]
            missing = [path for path in paths if lacks(Path(path), Path.exists)]
            if missing:
                found = f"camera.replay: nothing is at {', '.join(missing)}"
                return Finding("camera", "failed", found, "put it there or mend camera.replay")
            return Finding("camera", "ok", f"replay of {len(camera.replay)}")
        case "v4l2":
            from kiosk.capture.v4l2 import check_device, device_path

            try:
                check_device(device_path(camera.device))
            except CameraError as error:
                return Finding("camera", "failed", error.message, error.hint)
            return Finding("camera", "ok", f"{device_path(camera.device)} is there")
    if find_spec("picamera2") is None:
        return Finding(
            "camera",
            "failed",
            "picamera2: the library expected, it is not installed for this Python",
            "apt install python3-picamera2 and make the environment with --system-site-packages,"
            " or set camera.source",
        )
    return Finding("camera", "ok", f"picamera2 is installed, camera {camera.device or '0'}")


def _gallery(settings: Settings) -> Iterator[Finding]:
    """Whether the gallery is the newest one, and fits the model in use; nothing before a start."""
    try:
        if not (Path(settings.paths.state_dir) / OUTBOX_FILE).exists():
            return
        listing = perform(settings, "gallery.list")
    except KioskError as error:
        yield Finding("gallery", "failed", error.message, error.hint)
        return
    except OSError as error:
        found = f"{settings.paths.state_dir}: expected to be open to this user, got:"
        yield Finding("gallery", "failed", f"{found} {error.strerror}", AS_THE_USER)
        return
    if listing["standing"] == AS_SAVED:
        yield Finding("gallery", "ok", AS_SAVED)
    else:
        advice = "put the newest gallery back, or enrol and remove until it is right"
        yield Finding("gallery", "failed", listing["standing"], advice)
    if listing["people"]:
        yield _enrolment(settings, listing["changeover"])


def _enrolment(settings: Settings, found: dict[str, Any]) -> Finding:
    """Who must enrol again for the model in use, by id where the journal may say it."""
    if not settings.journal.names:
        found = {**found, "enrol_again": None}
    lines = in_words(found)
    if not lines:
        return Finding("enrolment", "ok", f"everybody is enrolled for {found['space']}")
    verdict: Verdict = "failed" if found["unrecognised"] else "warning"
    advice = "`kiosk gallery list` names everybody"
    return Finding("enrolment", verdict, "; ".join(lines), advice)


def _daemon(settings: Settings) -> Iterator[Finding]:
    """Whether it runs, and whether it gets rid of what it records."""
    try:
        if not daemon_listens(settings.paths.runtime_dir):
            yield Finding("daemon", "warning", "not running", "sudo systemctl start kiosk")
            return
        status = ask(settings.paths.runtime_dir, "status")
    except KioskError as error:
        yield Finding("daemon", "failed", error.message, error.hint)
        return
    yield Finding("daemon", "ok", "answers on its control socket")
    yield from _picture(status["camera"])
    yield _disk(status)
    queue = queue_words(status["outbox"])
    if status["online"] is False:
        yield Finding(
            "delivery",
            "warning",
            f"the server did not take the last event: {queue}",
            "the journal says why at uplink.failing; everything is kept meanwhile",
        )
    elif status["outbox"]["quarantined"]:
        advice = "`kiosk outbox quarantine` says why, `kiosk outbox retry` sends it once more"
        yield Finding("delivery", "warning", f"the server refused events: {queue}", advice)
    else:
        yield Finding("delivery", "ok", queue)


def _picture(state: str) -> Iterator[Finding]:
    """Whether the daemon gets frames: a camera that is there may bring none."""
    if state.startswith("failed"):
        advice = "cable and supply first; since when: journalctl -u kiosk -x -p err"
        yield Finding("picture", "failed", state.removeprefix("failed: "), advice)
    elif state == "ended":
        advice = "restart the daemon, or set replay_loops = 0"
        yield Finding("picture", "warning", "the replay is over, nobody is seen any more", advice)
    elif state == "running":
        yield Finding("picture", "ok", "frames come")


def _certificates(settings: Settings) -> Iterator[Finding]:
    """The PEM files that the configuration names: a plain http server never asks for them."""
    for key in ("ca_file", "client_cert_file", "client_key_file"):
        path = getattr(settings.server, key)
        if not path:
            continue
        problem = pem_problem(Path(path))
        if problem is None:
            yield Finding(f"server.{key}", "ok", f"{path} is there")
        else:
            yield Finding(f"server.{key}", "failed", f"{path}: {problem[0]}", problem[1])


def _disk(status: dict[str, Any]) -> Finding:
    """Whether there is space for punches, now and for a while."""
    found = disk_words(status["disk"])
    if status["cannot_record"]:
        return Finding("disk", "failed", status["cannot_record"], "free space on its disk")
    if status["disk"]["used"] >= FILLING:
        return Finding("disk", "warning", found, "free space before it is full")
    return Finding("disk", "ok", found)


def _server(settings: Settings) -> Iterator[Finding]:
    """What the configuration gives up, and whether anybody answers there now."""
    server, what = settings.server, "server settings"
    if config.sends_in_the_clear(server):
        found = f"{server.url}: plain http"
        yield Finding(what, "warning", found, "use https: a token is like a photo")
    if server.accept_plain_receipts:
        yield Finding(
            what,
            "warning",
            "any 2xx ends an event, a captive portal's too",
            "use a server that sends receipts",
        )
    try:
        yield Finding("server", "ok", reach(server))
    except LinkDownError as error:
        # The kiosk works without: it keeps what it records until somebody answers.
        yield Finding("server", "warning", error.message, error.hint)
    except UplinkPausedError as error:
        yield Finding("server", "failed", error.message, error.hint)
