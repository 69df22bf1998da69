"""The server's page, looked at in a real browser: the names are readable on the screenshot."""

import json
import shutil
import subprocess
import urllib.request

import cv2
import pytest

PEOPLE = ("obama", "collins")
VIEW = {"width": 1280, "height": 720}


def send(url, method, path, body):
    request = urllib.request.Request(url + path, body, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def url(tmp_path_factory, server_program, kiosk):
    """A server that two people were enrolled at and seen by, through the wire."""
    with server_program(tmp_path_factory.mktemp("server")) as (_, address):
        for number, name in enumerate(PEOPLE, start=1):
            enrolment = json.dumps(kiosk.enrolment(number)).encode()
            send(address, "PUT", f"/employees/{name}/faces", enrolment)
            body = kiosk.body(number, number, employee=name)
            assert send(address, "POST", "/toon/attendance", body)["S1"] == "ok"
        yield address


@pytest.fixture
def window(browser):
    """In a zone that is not UTC."""
    context = browser.new_context(viewport=VIEW, locale="en-GB", timezone_id="Asia/Kolkata")
    yield context
    context.close()


def read(picture, folder):
    """What an optical reader makes of a picture, in lower case."""
    larger = folder / "larger.png"
    pixels = cv2.resize(cv2.imread(str(picture)), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(larger), pixels)
    done = subprocess.run(
        ["tesseract", str(larger), "stdout", "--psm", "6"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.lower()


def test_recorded_names_are_on_the_page(url, window, tmp_path):
    """Two people were seen, and can be read on the page by a person and by OCR."""
    page, asked, faults = window.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: faults.append(said.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    for name in PEOPLE:
        cell = page.locator("td.who", has_text=name)
        box = cell.bounding_box()
        assert cell.is_visible()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= VIEW["width"]
        assert box["y"] + box["height"] <= VIEW["height"]
    assert page.locator("tbody tr").count() == len(PEOPLE)
    # Both times: 08:53:21 UTC is 14:23:21 in Kolkata.
    assert "08:53:21 UTC" in page.locator("tbody").inner_text()
    assert "14:23:21" in page.locator("tbody").inner_text()
    assert page.get_by_text("server agrees").count() == len(PEOPLE)
    page.fill("input[name=employee]", PEOPLE[0])
    page.click("button")
    assert page.url == f"{url}/attendance?employee={PEOPLE[0]}"
    assert page.locator("tbody tr").count() == 1
    page.goto(f"{url}/attendance")
    picture = tmp_path / "page.png"
    page.screenshot(path=picture)
    assert all(address.startswith(url) for address in asked)
    assert faults == []
    if shutil.which("tesseract") is None:
        pytest.skip("tesseract is not installed: the screenshot was taken but not read")
    words = read(picture, tmp_path)
    for name in PEOPLE:
        assert name in words


def test_a_telephone_shows_it_without_scrolling_sideways(url, window):
    """At 390 px the rows become cards, and nothing lies outside the screen."""
    page = window.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("td.who", has_text="obama").is_visible()
