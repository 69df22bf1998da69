"""The server's page, looked at in a real browser: the names are readable on the screenshot."""

import json
import shutil
import subprocess
import sys
import urllib.request

import cv2
import pytest


@pytest.fixture
def url(tmp_path):
    command = [sys.executable, "-m", "kiosk.server", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--store", f"sqlite:///{tmp_path}/a.db"], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().split("listening on ")[1].strip()
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def send(url, method, path, body):
    request = urllib.request.Request(url + path, body, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def test_recorded_names_are_on_the_page(url, kiosk, tmp_path):
    """Two people are enrolled, seen, and can be read by a person (and by OCR) on the page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    for number, name in enumerate(("obama", "collins"), start=1):
        enrolment = json.dumps(kiosk.enrolment(number)).encode()
        send(url, "PUT", f"/employees/{name}/faces", enrolment)
        body = kiosk.body(number, number, employee=name)
        assert send(url, "POST", "/toon/attendance", body)["S1"] == "ok"
    picture = tmp_path / "page.png"
    with sync_playwright() as player:
        browser = player.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{url}/attendance")
        for name in ("obama", "collins"):
            cell = page.locator("td.who", has_text=name)
            box = cell.bounding_box()
            assert cell.is_visible()
            assert box["y"] + box["height"] <= 720
        page.screenshot(path=picture)
        browser.close()
    if shutil.which("tesseract") is None:
        pytest.skip("tesseract is not installed: the screenshot was taken but not read")
    larger = tmp_path / "larger.png"
    cv2.imwrite(str(larger), cv2.resize(cv2.imread(str(picture)), None, fx=2, fy=2))
    read = subprocess.run(
        ["tesseract", str(larger), "stdout", "--psm", "6"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.lower()
    assert "obama" in read
    assert "collins" in read


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "0.0.0.0:0"], "TLS and a token"),
        (["--listen", "nonsense"], "HOST:PORT"),
        (["--cert", "/none.pem"], "both or neither"),
        (["--store", "postgresql://x"], "sqlite:///"),
    ],
)
def test_start_rules(arguments, told, tmp_path):
    """What would be unsafe is refused at start, in one line, with status 2."""
    store = [] if "--store" in arguments else ["--store", f"sqlite:///{tmp_path}/a.db"]
    done = subprocess.run(
        [sys.executable, "-m", "kiosk.server", *store, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
