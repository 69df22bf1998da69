"""Figures for Prometheus: read by its own parser, its own tool, and from a running daemon."""

import json
import logging
import re
import shutil
import subprocess
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kiosk.board import read_board
from kiosk.logbook import Logbook
from kiosk.metrics import MetricsFile, exposition
from kiosk.vision.shadow import Shadow

HANG_S = 60


def status(**changed):
    """A status document as the daemon makes it, with some of it changed."""
    logbook = Logbook()
    for milliseconds in (0.5, 1.0, 40.0, 9000.0):
        logbook.time("commit", milliseconds)
    logbook.count("frames")
    return {
        "version": "1.2.3",
        "configuration": "in force",
        "restarts": {"cause": "boot", "since_boot": {"boot": 1, "killed": 2}},
        "rss_mb": 150.5,
        "frames_per_s": 9.9,
        "frame_age_s": 0.1,
        "awake": False,
        "one_of": 1,
        "model": "mobilefacenet-fp32",
        "space": 'odd "space"\\',
        "at_ms": 1_000_000,
        "uptime_s": 12.5,
        "clock": "unsynced",
        "cannot_record": "",
        "outbox": {"pending": 2, "quarantined": 1, "oldest_ms": 940_000},
        "last_receipt_ms": None,
        "online": False,
        "disk": {"used": 0.25},
        "camera": "running",
        "fallback": None,
        "shadow": None,
        "board": read_board().document(),
        **logbook.summary(),
        **changed,
    }


def samples(text):
    """Value by name and labels, as Prometheus' own library reads the text."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text, name, **labels):
    return samples(text)[name, tuple(sorted(labels.items()))]


def test_the_text_is_what_prometheus_reads():
    """Ages, counts and labels come out of its parser as they went in."""
    text = exposition(status())
    assert value(text, "kiosk_queue_age_seconds") == 60
    assert value(text, "kiosk_queue_events") == 2
    assert value(text, "kiosk_online") == 0
    assert value(text, "kiosk_decisions_total", kind="frames") == 1
    about = {"version": "1.2.3", "model": "mobilefacenet-fp32", "space": 'odd "space"\\'}
    assert value(text, "kiosk_info", **about) == 1
    assert "last_receipt" not in text


def test_buckets_are_cumulative_and_bounds_belong_below():
    """`le`: 0.5 and 1.0 ms lie in the bucket of 1 ms, 9 s only in the one without a bound."""
    text, name = exposition(status()), "kiosk_stage_duration_seconds"
    buckets = [
        value(text, f"{name}_bucket", stage="commit", le=bound)
        for bound in ("0.001", "0.025", "0.05", "2.5", "+Inf")
    ]
    assert buckets == [2, 2, 3, 3, 4]
    assert value(text, f"{name}_count", stage="commit") == 4
    assert value(text, f"{name}_sum", stage="commit") == pytest.approx(9.0415)


def test_a_clock_that_went_back_makes_no_negative_age():
    """An event that seems to be of the future is as old as nothing."""
    queue = {"pending": 1, "quarantined": 0, "oldest_ms": 2_000_000}
    assert value(exposition(status(outbox=queue)), "kiosk_queue_age_seconds") == 0


@pytest.fixture
def promtool():
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is absent (Debian: apt-get install prometheus)")
    return lambda *arguments, **more: subprocess.run(
        [tool, *arguments], capture_output=True, text=True, timeout=HANG_S, check=False, **more
    )


def test_the_rules_check(promtool, repository):
    """By Prometheus' own tool."""
    done = promtool("check", "rules", str(repository / "deploy/monitoring/alerts.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_text_has_no_fault_that_its_tool_knows(promtool):
    """Names, units and types as Prometheus wants them."""
    done = promtool("check", "metrics", input=exposition(status()))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


ALARMS = {
    "KioskCannotRecord": ("kiosk_cannot_record", "0+0x9", "1+0x9"),
    "KioskNoCamera": ("kiosk_camera_up", "1+0x9", "0+0x9"),
    "KioskFallback": ("kiosk_model_fallback", "0+0x9", "1+0x9"),
    "KioskQuarantine": ("kiosk_queue_quarantined_events", "0+0x9", "2+0x9"),
    "KioskQueueOld": ("kiosk_queue_age_seconds", "60+60x9", "3600+60x9"),
    "KioskDiskFilling": ("kiosk_disk_used_ratio", "0.5+0x20", "0.9+0x20"),
    "KioskHot": ("kiosk_temperature_celsius", "60+0x9", "85+0x9"),
    "KioskConfigurationRefused": ("kiosk_configuration_refused", "0+0x9", "1+0x9"),
    "KioskRestarts": ('kiosk_starts_total{after="killed"}', "1+0x70", "1+1x70"),
    "KioskUnderVoltage": ("kiosk_under_voltage", "0+0x9", "1+0x9"),
    "KioskClockUnkept": ('kiosk_clock_info{trust="synced"}', "1+0x70", None),
}


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_is_raised_when_it_must(promtool, repository, tmp_path, alarm):
    """Prometheus plays the series through: silent while all is well, an alarm when not."""
    series, well, ill = ALARMS[alarm]
    cases = [(series, well, 0)]
    cases.append((series, ill, 1) if ill else (series.replace("synced", "unsynced"), well, 1))
    rules = (repository / "deploy/monitoring/alerts.yml").read_text()
    severity = re.search(rf"alert: {alarm}\n.*?severity: (\w+)", rules, re.DOTALL)[1]
    (tmp_path / "alerts.yml").write_text(re.sub(r"        annotations:\n(?: {10}.*\n)+", "", rules))
    tests = []
    for name, values, fires in cases:
        labels = re.search(r"{(.*)}", name)
        exp = {"severity": severity}
        if "trust" in name:
            exp |= {"trust": "unsynced"}
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values}],
                "alert_rule_test": [
                    {
                        "eval_time": "65m" if labels else "11m" if "x20" in values else "9m",
                        "alertname": alarm,
                        "exp_alerts": [{"exp_labels": exp}] * fires,
                    }
                ],
            }
        )
    play = tmp_path / "play.yml"
    play.write_text(json.dumps({"rule_files": ["alerts.yml"], "tests": tests}))
    done = promtool("test", "rules", str(play))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_ask_for_what_there_is(repository):
    """Every name in them is one that a daemon on a board writes."""
    board = {"temperature_c": 50.0, "under_voltage": False, "throttled": False}
    board |= {"card_wear": 0.1, "card_written_bytes": 1}
    text = exposition(status(board=board, last_receipt_ms=1))
    known = {name for name, _ in samples(text)}
    asked = set()
    for file in ("alerts.yml", "grafana.json"):
        words = (repository / "deploy/monitoring" / file).read_text()
        asked |= set(re.findall(r"\bkiosk_[a-z_]+", words))
    assert asked
    assert asked <= known


class Board:
    """A folder like /sys with what a Pi's kernel writes."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, path, text):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)


def test_the_board_is_read(tmp_path):
    """Bits as of `vcgencmd get_throttled`; rubbish and absence are None."""
    board = Board(tmp_path)
    assert set(read_board(tmp_path).document().values()) == {None}
    board.write("class/thermal/thermal_zone0/temp", "48312\n")
    board.write("devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    seen = read_board(tmp_path)
    assert (seen.temperature_c, seen.under_voltage, seen.throttled) == (48.312, True, True)
    assert seen.under_voltage_since_boot is True
    board.write("devices/platform/soc/soc:firmware/get_throttled", "10000\n")
    seen = read_board(tmp_path)
    assert (seen.under_voltage, seen.under_voltage_since_boot) == (False, True)
    board.write("class/thermal/thermal_zone0/temp", "hot")
    assert read_board(tmp_path).temperature_c is None


def test_the_card_is_read(tmp_path):
    """The worse of two kinds of cells, and what was written; a card that tells nothing is None."""
    board = Board(tmp_path)
    board.write("block/mmcblk0/device/life_time", "0x02 0x03\n")
    board.write("block/mmcblk0/stat", " 1 2 3 4 5 6 100 8 9 10 11\n")
    seen = read_board(tmp_path)
    assert (seen.card_wear, seen.card_written_bytes) == (0.3, 51_200)
    text = exposition(status(board=seen.document()))
    assert value(text, "kiosk_card_wear_ratio") == 0.3
    assert value(text, "kiosk_card_written_bytes_total") == 51_200
    for rubbish in ("0x00 0x00", "worn", ""):
        board.write("block/mmcblk0/device/life_time", rubbish)
        assert read_board(tmp_path).card_wear is None


def test_shadow_mode_is_a_histogram():
    """Cumulative, as its reader wants it; without a shadow there is none."""
    faces = Shadow(Other([0.91, 0.999, 1.0]), every=1)
    for _ in range(3):
        faces.see(None, None, "in-use")
    text = exposition(status(shadow=faces.document()))
    labels = {"other": "other"}
    assert value(text, "kiosk_shadow_cosine_bucket", le="0.9", **labels) == 0
    assert value(text, "kiosk_shadow_cosine_bucket", le="0.92", **labels) == 1
    assert value(text, "kiosk_shadow_cosine_bucket", le="+Inf", **labels) == 3
    assert value(text, "kiosk_shadow_cosine_count", **labels) == 3
    assert value(text, "kiosk_shadow_cosine_sum", **labels) == pytest.approx(2.909, abs=1e-4)
    assert "kiosk_shadow" not in exposition(status())


class Other:
    """A model whose embeddings are so like those in use."""

    id = "other"

    def __init__(self, cosines):
        self._cosines = list(cosines)

    def embed(self, _):
        return self

    def similarity(self, _):
        return self._cosines.pop(0)


class Steps:
    """A clock whose waits do what the test wants, one after the other, and then stop."""

    def __init__(self, *steps):
        self._steps = list(steps)

    def wait(self, stop, _):
        if self._steps:
            self._steps.pop(0)()
        else:
            stop.set()


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, caplog):
    """And the daemon goes on; when it can be written again, that is told too."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "none" / "kiosk.prom"
    seen = []
    clock = Steps(
        lambda: None, path.parent.mkdir, lambda: seen.append(path.read_text()), lambda: None
    )
    MetricsFile(path, status, clock, beat=lambda *_: None).run(threading.Event())
    told = [record.message for record in caplog.records if record.name == "kiosk.metrics"]
    assert told == ["metrics.not_written", "metrics.written_again"]
    assert value(seen[0], "kiosk_queue_events") == 2
    assert not list(path.parent.iterdir())


def test_a_daemon_writes_them(daemon, tmp_path):
    """Only counts: nobody who is enrolled is in it, and it goes when the daemon goes."""
    file = tmp_path / "kiosk.prom"
    daemon.write("http://127.0.0.1:9", extra=f'[metrics]\nfile = "{file}"\n')
    daemon.start()
    for _ in range(HANG_S * 10):
        if file.exists():
            break
        threading.Event().wait(0.1)
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert value(text, "kiosk_cannot_record") == 0
    assert value(text, "kiosk_queue_events") == 0
    assert daemon.stop() == 0
    assert not file.exists()
