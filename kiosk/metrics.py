"""The running daemon in Prometheus' text format (exposition format 0.0.4), made of its status.

Written for node_exporter's textfile collector: replaced in one step, so that no half file is read.
Neither a person nor an event is in it, only counts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kiosk.clock import Clock

log = logging.getLogger(__name__)

PERIOD_S = 15.0
_WRITE_S = 30.0
_OUTCOMES = "kiosk_decisions_total"
Value = float | int | bool | None


class _Sheet:
    """Families in order, each with its help and type once; a value of None is left out."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(
        self, name: str, kind: str, words: str, samples: Mapping[tuple[str, str], Value]
    ) -> None:
        """Add one: `samples` by suffix and labels."""
        known = {key: value for key, value in samples.items() if value is not None}
        if not known:
            return
        self.lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        self.lines += [f"{name}{end}{tags} {_number(v)}" for (end, tags), v in known.items()]

    def gauge(self, name: str, words: str, value: Value, labels: str = "") -> None:
        """Add a gauge of one sample."""
        self.family(name, "gauge", words, {("", labels): value})


def exposition(status: Mapping[str, Any]) -> str:
    """A status document in the text format.

    `status` is `Kiosk.status()`'s. Lines end with a newline each, the last one too.
    """
    sheet = _Sheet()
    _of_the_daemon(sheet, status)
    _of_the_queue(sheet, status)
    _of_the_eyes(sheet, status)
    _of_the_board(sheet, status)
    return "\n".join(sheet.lines) + "\n"


def _of_the_daemon(sheet: _Sheet, status: Mapping[str, Any]) -> None:
    about = _labels(version=status["version"], model=status["model"], space=status["space"])
    sheet.gauge("kiosk_info", "Version and model in use.", 1, about)
    sheet.gauge("kiosk_uptime_seconds", "Since the daemon began.", status["uptime_s"])
    configuration = status["configuration"] != "in force"
    sheet.gauge("kiosk_configuration_refused", "1: the last good one is in force.", configuration)
    starts = {("", _labels(after=k)): n for k, n in status["restarts"]["since_boot"].items()}
    sheet.family("kiosk_starts_total", "counter", "Starts since boot, by what came before.", starts)
    rss = status["rss_mb"] * 1024 * 1024 or None
    sheet.gauge("kiosk_resident_memory_bytes", "Of the daemon.", rss)
    trust = _labels(trust=status["clock"])
    sheet.gauge("kiosk_clock_info", "What vouches for the time.", 1, trust)
    unable = bool(status["cannot_record"])
    sheet.gauge("kiosk_cannot_record", "1: no punch can be recorded, somebody must come.", unable)


def _of_the_queue(sheet: _Sheet, status: Mapping[str, Any]) -> None:
    queue, now_ms = status["outbox"], status["at_ms"]
    sheet.gauge("kiosk_queue_events", "Events that wait to be sent.", queue["pending"])
    sheet.gauge("kiosk_queue_quarantined_events", "Events set aside.", queue["quarantined"])
    oldest, last = queue["oldest_ms"], status["last_receipt_ms"]
    # A clock that went back must not make an age that no rule expects.
    age = 0.0 if oldest is None else max(0.0, (now_ms - oldest) / 1000)
    sheet.gauge("kiosk_queue_age_seconds", "Age of the oldest event that waits.", age)
    stamp = None if last is None else last / 1000
    sheet.gauge("kiosk_last_receipt_timestamp_seconds", "The newest receipt, UTC.", stamp)
    sheet.gauge("kiosk_online", "1: the server took the last event.", status["online"])
    used = status["disk"].get("used")
    sheet.gauge("kiosk_disk_used_ratio", "Share in use of the disk with the queue.", used)


def _of_the_eyes(sheet: _Sheet, status: Mapping[str, Any]) -> None:
    running = status["camera"] == "running"
    sheet.gauge("kiosk_camera_up", "1: frames come.", running)
    sheet.gauge("kiosk_camera_frames_per_second", "That came.", status["frames_per_s"])
    sheet.gauge("kiosk_camera_frame_age_seconds", "Of the last one.", status["frame_age_s"])
    sheet.gauge("kiosk_awake", "1: something moves or a face was seen.", status["awake"])
    sheet.gauge("kiosk_frames_one_of", "Of so many one is looked at.", status["one_of"])
    counts = {("", _labels(kind=kind)): n for kind, n in sorted(status["counts"].items())}
    sheet.family(_OUTCOMES, "counter", "What visits and frames came to.", counts)
    fallback = status["fallback"] is not None
    sheet.gauge("kiosk_model_fallback", "1: FP32 has taken over from INT8.", fallback)
    if status["shadow"] is not None:
        words = "Cosine of the other model's embedding of a live face to the one in use."
        of_shadow = dict(_cosines(status["shadow"]))
        sheet.family("kiosk_shadow_cosine", "histogram", words, of_shadow)
    samples: dict[tuple[str, str], Value] = {}
    for stage, histogram in sorted(status["histograms"].items()):
        samples |= dict(_buckets(stage, histogram))
    name = "kiosk_stage_duration_seconds"
    sheet.family(name, "histogram", "How long each stage took.", samples)


def _of_the_board(sheet: _Sheet, status: Mapping[str, Any]) -> None:
    board = status["board"]
    sheet.gauge("kiosk_temperature_celsius", "Of the processor.", board["temperature_c"])
    sheet.gauge("kiosk_under_voltage", "1: too little power now.", board["under_voltage"])
    sheet.gauge("kiosk_throttled", "1: the firmware holds the clock down.", board["throttled"])
    sheet.gauge("kiosk_card_wear_ratio", "Of the card's life, where it tells.", board["card_wear"])
    written = {("", ""): board["card_written_bytes"]}
    name = "kiosk_card_written_bytes_total"
    sheet.family(name, "counter", "To the card since the boot.", written)


def _buckets(stage: str, histogram: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Value]]:
    total = 0
    bounds = [f"{bound / 1000:g}" for bound in histogram["bounds_ms"]]
    for bound, count in zip([*bounds, "+Inf"], histogram["counts"], strict=True):
        total += count
        yield ("_bucket", _labels(stage=stage, le=bound)), total
    yield ("_sum", _labels(stage=stage)), histogram["sum_ms"] / 1000
    yield ("_count", _labels(stage=stage)), total


def _cosines(shadow: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Value]]:
    total, other = 0, shadow["other"]
    for edge, count in zip(shadow["edges"], shadow["counts"], strict=True):
        total += count
        yield ("_bucket", _labels(other=other, le=f"{edge:g}")), total
    yield ("_bucket", _labels(other=other, le="+Inf")), total
    yield ("_sum", _labels(other=other)), total * (shadow["mean"] or 0.0)
    yield ("_count", _labels(other=other)), total


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: Value) -> str:
    return str(int(value)) if isinstance(value, bool | int) else repr(value)


class MetricsFile:
    """Keeps a file in that format up to date."""

    def __init__(
        self,
        path: Path,
        status: Callable[[], Mapping[str, Any]],
        clock: Clock,
        *,
        beat: Callable[[str, float], None],
    ) -> None:
        self._path, self._status, self._clock, self._beat = path, status, clock, beat
        self._failing = False

    def run(self, stop: threading.Event) -> None:
        """Write until `stop`, then take the file away: what is not running has no figures."""
        while not stop.is_set():
            self._beat("writes the figures", PERIOD_S + _WRITE_S)
            self._write()
            self._clock.wait(stop, PERIOD_S)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        try:
            _replace(self._path, exposition(self._status()))
        except OSError as error:
            if not self._failing:
                facts = {"path": str(self._path), "reason": error.strerror or str(error)}
                log.warning("metrics.not_written", extra={"fields": facts})
            self._failing = True
            return
        if self._failing:
            log.info("metrics.written_again", extra={"fields": {"path": str(self._path)}})
        self._failing = False


def _replace(path: Path, text: str) -> None:
    # Neither synced nor sealed: it is as old as the next write, and others are to read it.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o644)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
