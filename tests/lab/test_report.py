"""The report: figures in, one page out, looked at in a real browser."""

from dataclasses import replace
from pathlib import Path

import pytest

from kiosk.__main__ import main
from kiosk.lab.advice import Advice
from kiosk.lab.figures import cosine_edges
from kiosk.lab.margin import GateLine
from kiosk.lab.report import arithmetic_of, bar_width, figure_of, render
from kiosk.lab.report_data import (
    Entry,
    Judged,
    Layer,
    Layers,
    Record,
    ReportData,
    agreement_of,
    as_json,
    counted,
    read_report_data,
    similarity_of,
    thinned,
)

DATA = Path(__file__).parent / "data" / "report_data.json"
"""Figures of a build of the MobileFaceNet over face crops; no picture."""

PLOTS = ("ROC", "similarities", "cosine to FP32", "largest error", "order of the graph", "Millisec")
NOTHING = ReportData("int8.onnx", "fp32.onnx", Judged("native", "a machine"))
EVIL = "<script>document.title = 'taken'</script><img src=https://example.invalid/x>&\"' $a$"


@pytest.fixture(scope="module")
def data():
    return read_report_data(DATA)


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens figures as a page; afterwards nothing was asked for, no word said."""
    left, faults, contexts = [], [], []

    def guard(route):
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            left.append(route.request.url)
            route.abort()

    def show(shown, *, width=1200, scheme="light"):
        written = tmp_path / "report.html"
        written.write_text(render(shown), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, locale="en-GB"
        )
        contexts.append(context)
        context.route("**/*", guard)
        page = context.new_page()
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(written.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert left == []
    assert faults == []


def test_the_report_opens_in_a_browser(opened, data):
    """Verdict, gate, advice, tries and plots are on the page, and nothing leaves the machine."""
    page = opened(data)
    assert page.title() == "mobilefacenet-int8-nhwc-u8.onnx: passes the gate"
    assert "Passes the gate" in page.locator(".verdict h2").inner_text()
    assert "tightest line is min cosine" in page.locator(".verdict").inner_text()
    rows = page.locator(".gate tbody tr")
    assert rows.count() == len(data.gate)
    for row, line in zip(rows.all(), data.gate, strict=True):
        for part in (line.name, f"{line.value:.5f}", f"{line.limit:g}", "passes"):
            assert part in row.inner_text()
    assert page.locator(".advice li").count() == len(data.advice)
    assert page.locator("svg.plot").count() == len(PLOTS)
    said = [svg.get_attribute("aria-label") for svg in page.locator("svg.plot").all()]
    assert all(part in label for part, label in zip(PLOTS, said, strict=True))
    for svg in page.locator("svg.plot").all():
        box = svg.bounding_box()
        assert box["width"] > 400
        assert box["height"] > 150
    for text in ("0.22×", "49 of 50", "532"):
        assert text in page.locator(".tiles").inner_text()


def test_every_try_is_in_the_table(opened, data):
    """Final candidates are in sight, the chosen one marked; the long search unfolds on a click."""
    page = opened(data)
    final = [t for t in data.tries if t.note == "held-out faces"]
    table = page.locator("#tries > .scroll table")
    assert table.locator("tbody tr").count() == len(final)
    assert "mobilefacenet-int8-nhwc-u8.onnx" in table.locator("tr.chosen").inner_text()
    assert table.locator("td.fail").count() == sum(t.passed is False for t in final)
    hidden = page.locator("#tries details tbody tr")
    assert hidden.count() == len(data.tries) - len(final)
    assert not hidden.first.is_visible()
    page.locator("#tries summary").click()
    assert hidden.first.is_visible()


def test_on_paper_the_search_is_unfolded(opened, data):
    """Nobody can click on paper: printed, the folded tries are there."""
    page = opened(data)
    folded = page.locator("#tries details tbody tr").last
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_word_is_cut_or_on_another(opened, data, width, scheme):
    """At both widths nothing sticks out of the page or of a plot, and no two labels overlap."""
    page = opened(data, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for svg in page.locator("svg.plot").all():
        frame = svg.bounding_box()
        boxes = svg.evaluate(
            """drawn => [...drawn.querySelectorAll('text')].map(t => {
                const b = t.getBoundingClientRect();
                return [b.left, b.right, b.top, b.bottom, t.textContent];
            })"""
        )
        assert boxes
        for left, right, top, bottom, text in boxes:
            assert left >= frame["x"] - 2, text
            assert right <= frame["x"] + frame["width"] + 2, text
            assert top >= frame["y"] - 2, text
            assert bottom <= frame["y"] + frame["height"] + 2, text
        for place, one in enumerate(boxes):
            for other in boxes[place + 1 :]:
                across = min(one[1], other[1]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[2], other[2])
                height = min(one[3] - one[2], other[3] - other[2])
                assert across <= 1 or down <= 0.35 * height, (one[4], other[4])


def test_a_table_that_is_wider_than_the_page_scrolls_and_says_so(opened, data):
    """On a narrow page the last column can be reached, and a shade at the edge tells of it."""
    page = opened(data, width=390)
    table = page.locator("#accuracy .scroll")
    inside, whole = table.evaluate("e => [e.clientWidth, e.scrollWidth]")
    assert whole > inside
    assert "gradient" in table.evaluate("e => getComputedStyle(e).backgroundImage")
    last = page.locator("#accuracy tbody tr:first-child td:last-child")
    table.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    box = last.bounding_box()
    assert box["x"] + box["width"] <= 390


def test_the_time_is_set_against_the_fastest_fp32(opened, data):
    """A rewritten FP32 file that is faster than the one given is what INT8 must beat."""
    said = opened(data).locator(".tiles").inner_text()
    times = {m.name: m.timings[0].warm.min_ms for m in data.profile.models}
    tried = {each.name for each in data.tries}
    fastest = min(ms for name, ms in times.items() if name not in tried)
    assert fastest < times[data.against]
    assert f"{times[data.model] / fastest:.2f}×" in said
    assert f"fastest FP32 {fastest:.2f} ms" in said
    assert f"{times[data.model] / times[data.against]:.2f}× of {data.against}" in said


def test_a_failing_try_names_its_lines(opened, data):
    """Which line, with its figure and the limit; what rounds to nought has no sign."""
    failing = "mean cosine 0.994960 (> 0.995 expected)"
    tries = (replace(data.tries[0], passed=False, failing=failing, cosine_mean=0.99496),)
    gate = (*data.gate[:2], GateLine("AUC drop", 0.0, 0.01, 0.0))
    said = opened(replace(data, tries=tries, gate=gate)).inner_text("main")
    assert failing in said
    assert "0.99496" in said
    assert "-0 %" not in said


def test_dark_and_light_are_two_papers(opened, data):
    """The page follows the reader's scheme, and the plots follow the page."""
    seen = {}
    for scheme in ("light", "dark"):
        page = opened(data, scheme=scheme)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('svg.plot text')).fill")
        seen[scheme] = (paper, ink)
    assert seen["light"][0] != seen["dark"][0]
    assert seen["light"][1] != seen["dark"][1]


def test_the_same_figures_give_the_same_bytes(data):
    """No date, no random id: rendered twice, the bytes are equal, and no id is there twice."""
    once = render(data)
    assert render(read_report_data(DATA)) == once
    ids = [part.split('"')[0] for part in once.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_the_json_comes_back_as_it_was(data):
    """Figures to JSON and back are equal, and the file is what is written again."""
    assert as_json(data) == DATA.read_bytes()
    assert read_report_data(DATA) == data


def test_the_figures_name_no_place_of_the_machine(data):
    """A report may be shown: no path of the machine that made it is in its figures."""
    text = DATA.read_text(encoding="utf-8")
    assert not any(f"/{root}/" in text for root in ("work", "tmp", "root", "home", "usr"))


def test_what_was_not_measured_is_said(opened):
    """With nothing but two names each part says so in its place, and there is no verdict."""
    page = opened(NOTHING)
    assert page.locator(".verdict h2").inner_text() == "Not judged"
    assert page.title() == "int8.onnx: not judged by the gate"
    assert page.locator("svg.plot").count() == 0
    for part in ("accuracy", "agreement", "layers", "speed", "tries"):
        assert "not measured" in page.locator(f"#{part}").inner_text(), part
    assert page.locator(".tiles .none").count() == 4
    assert "No record" in page.locator("#record").inner_text()


def test_a_part_that_is_missing_leaves_the_others(opened, data):
    """Without a profile the times of the candidates are drawn; without curves only those go."""
    page = opened(replace(data, profile=None, curves=()))
    assert page.locator("svg.plot").count() == len(PLOTS) - 1
    assert "This was not measured" in page.locator("#accuracy").inner_text()
    assert "not measured" in page.locator(".tiles").inner_text()


def test_a_failing_gate_names_its_line(opened, data):
    """The page fails with the line that is worst, by how much, and says which lines pass."""
    gate = (
        GateLine("mean cosine", 0.98, 0.995, 1.0),
        GateLine("min cosine", 0.97, 0.98, 1.0),
        *data.gate[2:],
    )
    page = opened(replace(data, gate=gate))
    said = page.locator(".verdict").inner_text()
    assert "Fails the gate" in said
    assert "2 of 5 lines fail, mean cosine by most: 4.0 times the loss" in " ".join(said.split())
    assert page.locator(".gate tr.fail").count() == 2
    assert page.title().endswith("fails the gate")
    one = opened(replace(data, gate=(*data.gate[:-1], GateLine("AUC drop", 0.02, 0.01, 0.0))))
    assert "1 of 5 lines fails, AUC drop by most" in one.locator(".verdict").inner_text()


def test_a_gate_without_a_number_fails(data):
    """NaN fails, fills its bar, and is not printed as a share."""
    line = GateLine("mean MAE", float("nan"), 0.005, 0.0)
    page = render(replace(data, gate=(line,)))
    assert "Fails the gate" in page
    assert "it is not a number" in page
    assert "nan %" not in page
    assert bar_width(line) == "100%"


def test_names_are_text_and_never_markup(opened, data):
    """HTML in the names of models, layers, records and advice is shown as it is written."""
    advice = (Advice("x", "hint", EVIL, EVIL, EVIL),)
    rows = (Layer(EVIL, EVIL, 0.1, False),)
    page = opened(
        replace(
            data,
            model=EVIL,
            against=EVIL,
            summary=EVIL,
            made=EVIL,
            judged=Judged("native", EVIL),
            advice=advice,
            layers=Layers(EVIL, rows),
            curves=tuple(replace(curve, name=EVIL) for curve in data.curves),
            agreements=tuple(replace(each, name=EVIL) for each in data.agreements),
            similarities=tuple(replace(each, name=EVIL) for each in data.similarities),
            tries=tuple(replace(each, name=EVIL, note=EVIL) for each in data.tries[:3]),
            records=(Record(EVIL, (Entry(EVIL, EVIL),)),),
        )
    )
    assert page.title().startswith("<script>")
    assert page.locator("script, img").count() == 0
    assert page.locator("h1").inner_text() == EVIL
    assert "$a$" in page.locator("svg.plot").first.inner_html()


def test_the_arithmetic_is_told():
    """Reference or native, and whether this machine's own products saturate."""
    said = {
        (kind, saturates): arithmetic_of(Judged(kind, "AMD EPYC", saturates))
        for kind in ("native", "reference")
        for saturates in (True, False, None)
    }
    assert len(set(said.values())) == 5
    assert "own kernels saturate" in said["reference", True]
    assert said["reference", False].endswith("Run on AMD EPYC.")
    assert "on ARM, and on x86 with VNNI, the same file gives other" in said["native", True]
    assert "do not saturate" in said["native", False]
    assert "not known" in said["native", None]


def test_bars_and_figures():
    """The limit lies at 80 % of a bar, the end at 1.25 of the loss; None is a dash."""
    assert bar_width(GateLine("a", 0.995, 0.995, 1.0)) == "80%"
    assert bar_width(GateLine("a", 0.5, 0.995, 1.0)) == "100%"
    assert bar_width(GateLine("a", -1.0, 0.01, 0.0)) == "0%"
    assert (figure_of(None), figure_of(0.5, 2), figure_of(-0.5, 1)) == ("–", "0.50", "−0.5")


def test_counts_keep_what_lies_outside():
    """What lies beyond the edges is counted in the outermost bins: no face is lost."""
    assert counted([-1, 0.1, 0.6, 5], [0.0, 0.5, 1.0]) == (2, 2)
    shown = similarity_of("a", "int8", [0.9, 1.0], [-0.9, 0.0, 0.1])
    assert (sum(shown.genuine), sum(shown.impostor)) == (2, 3)
    agreed = agreement_of("a", "int8", [0.97, 0.99, 1.0], [0.98, 0.99, 1.0])
    assert (agreed.counts, agreed.least) == ((1, 2), 0.97)
    assert agreed.mean == pytest.approx(0.98667, abs=1e-5)


@pytest.mark.parametrize(("least", "start"), [(0.99, 0.975), (0.96, 0.95), (0.9, 0.9)])
def test_the_judged_models_worst_face_is_inside_its_histogram(least, start):
    """The edges begin below the least cosine, and at the least below the gate's limit."""
    edges = cosine_edges(least)
    assert (edges[0], edges[-1], len(edges)) == (start, 1.0, 51)


def test_a_thinned_curve_is_the_same_staircase():
    """Ends stay, FAR and TAR still rise, and FAR 0, which no log axis has, is left out."""
    far, tar = thinned([0, 1e-5, 1e-5, 1e-3, 1.0], [0.1, 0.2, 0.3, 0.9, 1.0], points=3)
    assert (far[0], far[-1], tar[0], tar[-1]) == (1e-5, 1.0, 0.3, 1.0)
    assert list(far) == sorted(far)
    assert list(tar) == sorted(tar)
    assert thinned([0.0], [0.5]) == ((), ())


def test_the_command_writes_the_page(tmp_path, capsys, data):
    """`kiosk lab report DATA.json --out FILE.html` writes what `render` gives."""
    out = tmp_path / "r.html"
    assert main(["lab", "report", str(DATA), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == render(data)
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("not json", "report data expected"),
        ('{"model": "a"}', "missing required field"),
        ('{"model": 1, "against": "b"}', "$.model"),
        ("\udcff", "report data expected"),
    ],
)
def test_other_data_is_refused_in_one_line(tmp_path, capsys, text, told):
    """A missing file, no JSON, a missing or a wrong field: named, status 2, nothing written."""
    given, out = tmp_path / "data.json", tmp_path / "r.html"
    if text is not None:
        given.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["lab", "report", str(given), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "data.json" in said
    assert told in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    """`--out` in a folder that is not there: status 2, and the path is named."""
    out = tmp_path / "no" / "r.html"
    assert main(["lab", "report", str(DATA), "--out", str(out)]) == 2
    assert f"{out}: cannot be written, No such file" in capsys.readouterr().err
