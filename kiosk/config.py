"""Configuration: one TOML file, read once, into frozen structures, one slice for each room.

Every mistake in a file is told at once, each with its key, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kiosk.address import in_the_clear
from kiosk.errors import ConfigError
from kiosk.files import lacks, read_toml, replaceable_problem
from kiosk.joint import joint_problems
from kiosk.tables import Reading

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Timeout = Annotated[float, Meta(ge=0.1, le=300.0)]
Side = Annotated[int, Meta(ge=64, le=8192)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]

_FILES = ("server.ca_file", "server.client_cert_file", "server.client_key_file")


class Device(Struct, frozen=True, forbid_unknown_fields=True):
    """Who this kiosk is. The device id itself is random and made at first start."""

    label: Annotated[str, Meta(max_length=64)] = ""
    """Shown on the page and in the journal; never an identity."""
    direction: Literal["in", "out", "none"] = "none"
    """Event type `A2` of every punch; "none" leaves it out."""


class Paths(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the kiosk keeps things."""

    state_dir: Name = "/var/lib/kiosk"
    """Queue, gallery, keys: survives restarts and updates. Made with mode 0700."""
    runtime_dir: Name = "/run/kiosk"
    """The control socket. Made with mode 0750; others must not be able to write in it."""


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to replay: a video file, a folder of images, or a still turned into a walk-up."""

    path: Name
    mirror: bool = False
    gamma: Annotated[float, Meta(ge=0.2, le=5.0)] = 1.0
    """Relight: above 1 brightens, below 1 darkens."""
    jpeg_quality: Annotated[int, Meta(ge=0, le=100)] = 0
    """Recompress every frame at this quality; 0 leaves it as it is."""
    seconds: Annotated[float, Meta(ge=0.5, le=3600.0)] = 5.0
    """Length of the walk-up made from a still."""
    focus_x: Share = 0.5
    """Where the walk-up of a still goes, as a share of its width."""
    focus_y: Share = 0.33
    zoom: Annotated[float, Meta(ge=1.0, le=8.0)] = 2.0
    """How much nearer than the whole picture the walk-up of a still comes."""


class Camera(Struct, frozen=True, forbid_unknown_fields=True):
    """Where frames come from."""

    source: Literal["picamera2", "v4l2", "replay"] = "picamera2"
    device: Annotated[str, Meta(max_length=200)] = ""
    """v4l2: a device path, best a stable one below /dev/v4l/by-id; picamera2: camera number."""
    width: Side = 1280
    height: Side = 720
    frames_per_s: Annotated[float, Meta(ge=0.5, le=60.0)] = 10.0
    frame_timeout_s: Timeout = 5.0
    motion_gate: bool = True
    """Only while something moves, or a face is seen, frames are looked at."""
    distance_m: Annotated[float, Meta(ge=0.1, le=10.0)] = 0.7
    """Where people stand; a Pi camera with a lens that moves is focused there."""
    replay: tuple[Replay, ...] = ()
    replay_seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 1
    replay_loops: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    """How often the list is replayed; 0 is for ever."""


class Models(Struct, frozen=True, forbid_unknown_fields=True):
    """Which weights are used."""

    embedder: Name = "mobilefacenet-fp32"
    """Names a file, and by it the space: which of its files is used, `prefer` says."""
    also: Annotated[str, Meta(max_length=200)] = ""
    """A file of a second space that recognises beside `embedder` whoever is enrolled there."""
    detector: Name = "blazeface-short-fp32"
    extra_dirs: tuple[Name, ...] = ()
    """Folders with a manifest.toml and weights of one's own, besides the shipped ones."""
    prefer: Literal["auto", "int8", "fp32", "exact"] = "auto"
    """"auto": the fastest file of the space that agrees with FP32 on this machine; "int8", "fp32":
    the fastest such; "exact": the file that `embedder` names, without measuring."""
    threads: Annotated[int, Meta(ge=1, le=16)] = 2
    canary_period_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 600.0
    """So often an INT8 model in use is held against a golden face."""
    shadow_every: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Every so many live faces are embedded by the other model too, to compare; 0 is never."""
    detection_score: Share = 0.7


class Recognition(Struct, frozen=True, forbid_unknown_fields=True):
    """When a face is a person, and a person a punch."""

    threshold: Annotated[float, Meta(ge=-1.0, le=1.0)] | Literal["model"] = "model"
    """Least cosine similarity; "model" takes the manifest's, found on that model's ROC.
    A number holds for `models.embedder`; `models.also` always goes by the manifest's."""
    margin: Share = 0.05
    """Least lead of the best person over the second best."""
    min_quality: Share = 0.3
    frames_to_agree: Annotated[int, Meta(ge=1, le=30)] = 3
    frames_to_give_up: Annotated[int, Meta(ge=1, le=300)] = 8
    """So many usable frames without a name make a visit an unknown one."""
    visit_gap_s: Annotated[float, Meta(ge=0.2, le=60.0)] = 2.0
    """A face unseen for so long has left."""
    repeat_window_s: Seconds = 300.0
    """The same person and direction are not recorded again within it; 0 records every visit."""
    unknown: Literal["drop", "send"] = "drop"
    """"drop" counts strangers and stores nothing; "send" leaves the naming to the server."""


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """The attendance server and how it is spoken to."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/]+(/[^\s]*)?$",
            max_length=500,
            description="a URL of at most 500 characters, without spaces, that begins with"
            " https:// (or http://), such as https://attendance.example.org:8320",
        ),
    ]
    allow_plain_http: bool = False
    ca_file: Annotated[str, Meta(max_length=500)] = ""
    """Trust this authority instead of the ones that come with requests (certifi)."""
    client_cert_file: Annotated[str, Meta(max_length=500)] = ""
    client_key_file: Annotated[str, Meta(max_length=500)] = ""
    connect_timeout_s: Timeout = 5.0
    read_timeout_s: Timeout = 15.0
    backoff_base_s: Annotated[float, Meta(ge=0.05, le=60.0)] = 1.0
    backoff_cap_s: Annotated[float, Meta(ge=1.0, le=3600.0)] = 300.0
    heartbeat_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 300.0
    """So often the server is told how this kiosk stands; 0 for never."""
    key_id: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    """Id of the sign key the server knows this kiosk by; empty sends unsigned messages."""
    require_signed_receipts: bool | Literal["auto"] = "auto"
    """"auto": required when a key id is set."""
    accept_plain_receipts: bool = False
    """Take any 2xx as recorded: only for a server that sends no receipts, never on open Wi-Fi."""


class Feedback(Struct, frozen=True, forbid_unknown_fields=True):
    """What the person in front sees."""

    page_port: Annotated[int, Meta(ge=0, le=65535)] = 8321
    """Port of the page on loopback; 0 serves none."""
    show_names: bool = True
    hold_s: Annotated[float, Meta(ge=0.5, le=30.0)] = 4.0
    """How long a message stays on the page."""


class Journal(Struct, frozen=True, forbid_unknown_fields=True):
    """What is written down."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    names: bool = False
    """Write employee ids into the journal."""


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """Figures for whoever watches many kiosks."""

    file: Annotated[str, Meta(max_length=500, pattern=r"^$|\.prom$")] = ""
    """For node_exporter's textfile collector, which takes names in .prom; "" for none."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """The same at http://127.0.0.1:PORT/metrics; 0 serves none."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What the kiosk spares its board."""

    hot_c: Annotated[float, Meta(ge=40.0, le=90.0)] = 75.0
    """From this temperature on fewer frames are looked at."""
    memory_mb: Annotated[int, Meta(ge=0, le=100_000)] = 450
    """With more in RAM it ends between two visits, to be started anew; 0 for no limit."""
    reboots_a_day: Annotated[int, Meta(ge=0, le=24)] = 0
    """So often a day the board may be rebooted for a camera that no fresh process brings back."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: Server
    device: Device = Device()
    paths: Paths = Paths()
    camera: Camera = Camera()
    models: Models = Models()
    recognition: Recognition = Recognition()
    feedback: Feedback = Feedback()
    journal: Journal = Journal()
    metrics: Metrics = Metrics()
    limits: Limits = Limits()


def load(path: Path, *, files: bool = False) -> Settings:
    """Read and check a configuration file; with `files` also whether the files it names are there.

    The daemon starts without those and says what is missing: they may come later. Raises
    ConfigError whose `problems` name key, value and what is allowed, for every mistake.
    """
    return check(read_toml(path), str(path), files=files)


def check(document: dict[str, Any], origin: str, *, files: bool = False) -> Settings:
    """Turn a parsed document into Settings, or raise ConfigError with all its problems."""
    reading = Reading(document, Settings)
    problems = [*reading.problems, *joint_problems(reading.known)]
    if files:
        problems += _missing_files(reading.known)
    if not problems:
        return msgspec.convert(document, Settings)
    count = len(problems)
    raise ConfigError(
        f"{origin}: {count} problem{'s' if count > 1 else ''}: " + " | ".join(problems),
        problems=tuple(problems),
    )


def _missing_files(known: Mapping[str, Any]) -> Iterator[str]:
    for key in _FILES:
        path = known.get(key)
        if path and lacks(Path(path), Path.is_file):
            yield f"{key} = {path!r}: expected a PEM file, there is none"
    for folder in known.get("models.extra_dirs", ()):
        if lacks(Path(folder), Path.is_dir):
            yield f"models.extra_dirs: expected a folder with a manifest.toml at {folder!r}"
    source, device = known.get("camera.source"), known.get("camera.device")
    if source == "replay":
        for index, replay in enumerate(known.get("camera.replay", ())):
            if lacks(Path(replay["path"]), Path.exists):
                yield f"camera.replay[{index}].path = {replay['path']!r}: nothing is there"
    if source == "v4l2" and device:
        path = f"/dev/video{device}" if device.isdecimal() else device
        if lacks(Path(path), Path.is_char_device):
            yield f"camera.device = {device!r}: expected a V4L2 device at {path}, there is none"
    yield from _unwritable_figures(known)


def _unwritable_figures(known: Mapping[str, Any]) -> Iterator[str]:
    file = known.get("metrics.file")
    if not file:
        return
    state_dir = known.get("paths.state_dir", Paths().state_dir)
    problem = replaceable_problem(Path(file), Path(state_dir))
    if problem is not None:
        yield f"metrics.file = {file!r}: {problem}"


def sends_in_the_clear(server: Server) -> bool:
    """Whether messages leave this machine unencrypted."""
    return in_the_clear(server.url)


def signed_receipts_required(server: Server) -> bool:
    """Whether a receipt without a right SIG2 leaves the event unsettled."""
    if server.require_signed_receipts == "auto":
        return bool(server.key_id)
    return server.require_signed_receipts
