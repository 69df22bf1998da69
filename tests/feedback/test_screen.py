"""The page in a real browser: what a person sees in each state."""

import re

import pytest

from kiosk.feedback.notice import NoticeKind

STATES = [
    (NoticeKind.IDLE, None, "Ready"),
    (NoticeKind.LOOK, None, "Hold still"),
    (NoticeKind.RECORDED, "Barack Obama", "Recorded"),
    (NoticeKind.SAVED_OFFLINE, "Susan Collins", "Saved"),
    (NoticeKind.ALREADY_RECORDED, "Ann", r"Already recorded at \d\d:\d\d"),
    (NoticeKind.NOT_RECOGNISED, None, "Not recognised"),
    (NoticeKind.CANNOT_RECORD, None, "CANNOT RECORD"),
    (NoticeKind.NO_CAMERA, None, "No camera picture"),
]
LOOK_AT = """() => {
  const style = getComputedStyle(document.body);
  const boxes = [...document.querySelectorAll("#words > *, #symbol, #label, #clock")]
    .filter((e) => e.textContent.trim() || e.id === "symbol")
    .map((e) => e.getBoundingClientRect());
  return {
    kind: document.body.dataset.kind,
    headline: document.getElementById("headline").innerText.replace(/\\s+/g, " "),
    person: document.getElementById("person").innerText,
    detail: document.getElementById("detail").innerText,
    label: document.getElementById("label").innerText,
    clock: document.getElementById("clock").innerText,
    size: parseFloat(getComputedStyle(document.getElementById("headline")).fontSize),
    symbols: [...document.querySelectorAll("#symbol g")]
      .filter((g) => getComputedStyle(g).display !== "none").map((g) => g.classList[0]),
    symbol: document.getElementById("symbol").getBoundingClientRect().height,
    inside: boxes.every((b) => b.left >= 0 && b.top >= 0 && b.right <= innerWidth
      && b.bottom <= innerHeight),
    colours: [style.getPropertyValue("--paper").trim(), style.getPropertyValue("--ink").trim()],
  };
}"""


@pytest.fixture
def screen(browser, port):
    """Open the page on a display of this size; a script that fails fails the test."""
    screens, failures = [], []

    def show(width=800, height=480):
        view = browser.new_page(viewport={"width": width, "height": height})
        view.on("pageerror", lambda error: failures.append(str(error)))
        view.clock.install()
        view.goto(f"http://127.0.0.1:{port}/")
        screens.append(view)
        return view

    yield show
    for view in screens:
        view.close()
    assert not failures


def wait_for(view, kind):
    """Wait until the screen is in this state, and describe it."""
    view.wait_for_selector(f"body[data-kind={kind}]")
    return view.evaluate(LOOK_AT)


def jump(view, seconds):
    """Move the browser's clock on by this much and stop it there."""
    view.clock.pause_at(view.evaluate("Date.now()") / 1000 + seconds)


def contrast(colours):
    """Contrast ratio of two #rrggbb or #rgb colours, 1..21 (WCAG 2.2)."""
    lights = []
    for colour in colours:
        digits = colour.lstrip("#")
        digits = digits if len(digits) == 6 else "".join(2 * d for d in digits)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("size", [(800, 480), (1280, 800), (480, 800)])
def test_every_state_is_readable(open_page, screen, tell, size):
    """Each state shows its own symbol, words and colours, large, in contrast and uncut."""
    page = open_page(label="Main entrance", hold_s=30.0)
    view = screen(*size)
    wait_for(view, "idle")
    seen = []
    for kind, person, words in STATES:
        tell(page, kind, person)
        state = wait_for(view, kind.value)
        seen.append(state)
        assert re.fullmatch(words, state["headline"])
        assert state["person"] == (person or "")
        assert state["symbols"] == [kind.value]
    page.close()
    seen.append(wait_for(view, "lost"))
    assert seen[-1]["headline"] == "Kiosk is not running"
    for state in seen:
        assert state["label"] == "Main entrance"
        assert re.fullmatch(r"\d\d:\d\d", state["clock"])
        assert state["inside"], state
        assert state["symbol"] >= 0.3 * min(size)
        assert state["size"] >= (60 if size[0] >= 800 else 40), state
        assert contrast(state["colours"]) >= 7.0, state
    assert len({tuple(state["symbols"]) for state in seen}) == len(seen)
    assert len({state["colours"][0] for state in seen}) == len(seen)


def test_a_long_name_is_made_to_fit(open_page, screen, tell):
    """The longest name and words stay on the smallest display, in smaller letters."""
    page = open_page(hold_s=30.0)
    view = screen()
    name = "Wolfeschlegelsteinhausenbergerdorff-Maximiliane von Habsburg-Lothringen"
    tell(page, NoticeKind.SAVED_OFFLINE, name)
    state = wait_for(view, "saved-offline")
    assert state["inside"]
    assert state["person"].replace("\n", "") == name
    assert state["size"] >= 30


def test_markup_in_a_name_is_only_text(open_page, screen, tell):
    """A name or label cannot become part of the page."""
    page = open_page(label="<img src=x onerror=alert(1)>", hold_s=30.0)
    view = screen()
    tell(page, NoticeKind.RECORDED, "<b>ann</b><script>1</script>")
    state = wait_for(view, "recorded")
    assert state["person"] == "<b>ann</b><script>1</script>"
    assert state["label"] == "<img src=x onerror=alert(1)>"
    assert view.locator("img, main b, main script").count() == 0


def test_a_hidden_name_is_nowhere_in_the_page(open_page, screen, tell):
    """With show_names = false the person reads what happened, and no bystander reads who."""
    page = open_page(show_names=False, hold_s=30.0)
    view = screen()
    tell(page, NoticeKind.RECORDED, "ann-of-cleves")
    assert wait_for(view, "recorded")["headline"] == "Recorded"
    assert "ann-of-cleves" not in view.content()


def test_a_message_gives_way_to_idle(open_page, screen, tell):
    """The page itself falls back to idle after hold_s, and not before."""
    page = open_page(hold_s=4.0)
    view = screen()
    wait_for(view, "idle")
    jump(view, 1)
    tell(page, NoticeKind.RECORDED, "ann")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(view.locator("body")).to_have_attribute("data-kind", "recorded")
    view.clock.run_for(3900)
    assert view.evaluate(LOOK_AT)["kind"] == "recorded"
    view.clock.run_for(200)
    state = view.evaluate(LOOK_AT)
    assert state["kind"] == "idle"
    assert (state["headline"], state["person"]) == ("Ready", "")


def test_a_message_gives_way_to_no_camera(open_page, screen, tell):
    """The last visit is told after the camera went: what follows is not that it is ready."""
    page = open_page(hold_s=4.0)
    view = screen()
    wait_for(view, "idle")
    jump(view, 1)
    tell(page, NoticeKind.NO_CAMERA)
    tell(page, NoticeKind.RECORDED, "ann")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(view.locator("body")).to_have_attribute("data-kind", "recorded")
    view.clock.run_for(4100)
    state = view.evaluate(LOOK_AT)
    assert (state["kind"], state["headline"]) == ("no-camera", "No camera picture")


def test_cannot_record_does_not_give_way(open_page, screen, tell):
    """A kiosk that cannot record never turns to a friendly idle by itself."""
    page = open_page(hold_s=0.5)
    view = screen()
    tell(page, NoticeKind.CANNOT_RECORD)
    wait_for(view, "cannot-record")
    jump(view, 3)
    assert view.evaluate(LOOK_AT)["kind"] == "cannot-record"


def test_a_screen_that_rests_on_cannot_record_comes_back_to_it(open_page, screen, tell):
    """While nothing can be recorded a "hold still" gives way to that, never to "ready"."""
    page = open_page(hold_s=4.0)
    view = screen()
    page.cannot_record(True)
    wait_for(view, "cannot-record")
    jump(view, 1)
    tell(page, NoticeKind.LOOK)
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(view.locator("body")).to_have_attribute("data-kind", "look")
    view.clock.run_for(4100)
    assert view.evaluate(LOOK_AT)["kind"] == "cannot-record"


def test_a_lost_kiosk_is_told_and_found_again(open_page, screen, tell):
    """No stale green: a dead kiosk is named at once, a living one is back by itself."""
    page = open_page(hold_s=30.0)
    view = screen()
    tell(page, NoticeKind.RECORDED, "ann")
    wait_for(view, "recorded")
    page.close()
    state = wait_for(view, "lost")
    assert (state["headline"], state["person"]) == ("Kiosk is not running", "")
    open_page(label="Back again")
    assert wait_for(view, "idle")["label"] == "Back again"


def test_a_kiosk_that_hangs_is_told(open_page, screen, monkeypatch):
    """A stream that is open but silent is no living kiosk."""
    monkeypatch.setattr("kiosk.feedback.web.HEARTBEAT_S", 3600.0)
    open_page()
    view = screen()
    wait_for(view, "idle")
    jump(view, 6)
    assert wait_for(view, "lost")["headline"] == "Kiosk is not running"


def test_a_page_of_an_older_kiosk_is_replaced(open_page, screen, monkeypatch):
    """After an update the browser, which nobody reloads, gets the new page."""
    page = open_page()
    view = screen()
    wait_for(view, "idle")
    view.evaluate("document.body.classList.add('old')")
    page.close()
    wait_for(view, "lost")
    media_type = "text/css; charset=us-ascii"
    files = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
    style = {"/page.css": ("__init__.py", media_type)}
    monkeypatch.setattr("kiosk.feedback.web._FILES", files | style)
    open_page()
    view.wait_for_selector("body[data-kind=idle]:not(.old)")


def test_the_page_before_the_kiosk_has_spoken_claims_nothing(open_page, browser, port):
    """Without its script the page says that the kiosk is not running."""
    open_page()
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(f"http://127.0.0.1:{port}/")
    assert view.locator("h1").inner_text() == "Kiosk is not running"
    context.close()
