"""The page in a real browser: it sorts, filters and steps, and asks nobody for anything."""

import shutil

import pytest
from tests.test_report import make_results, write_run

from semiseg.report.page import write_page
from semiseg.report.summary import read_results
from semiseg.report.tables import all_tables

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; on Debian: apt-get install chromium")


def write(results, path):
    """The page without plots, which take their time."""
    content = read_results(results)
    write_page(content, all_tables(content), [], results, path)
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    results = make_results(tmp_path_factory.mktemp("results"))
    write_run(results, "hostile", 0.05, 0, 0.33, title="</script><script>alert(1)</script>")
    return write(results, results / "index.html")


@pytest.fixture(params=[{}, {"viewport": {"width": 360, "height": 700}, "color_scheme": "dark"}], ids=["wide", "phone"])
def page(browser, file, request):
    """The open page; at the end of every test, nothing may have gone wrong behind it."""
    context = browser.new_context(**request.param)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    context.close()


def methods(page):
    return [name.strip() for name in page.locator("#board .method").all_inner_texts()]


def test_the_leaderboard_begins_with_the_best_and_turns_around(page):
    assert methods(page)[:2] == ["Full", "Plain"]
    assert page.locator("#board [data-column=score]").get_attribute("aria-sort") == "descending"
    best_first = methods(page)
    page.click("#board [data-column=score] button")
    assert methods(page) == best_first[::-1]
    page.click("#board [data-column=method] button")
    assert methods(page) == sorted(methods(page), key=str.lower)


def test_a_distance_is_sorted_the_other_way_round(page):
    best_first = methods(page)
    page.select_option("#filter-metric", label="HD95")  # every metric has the same value here
    assert methods(page) == best_first[::-1]


def test_filters_show_the_rows_asked_for_and_the_upper_bound(page):
    page.select_option("#filter-labels", label="20 %")
    assert set(page.locator("#board .row td.number:nth-child(2)").all_inner_texts()) == {"20 %", "100 %"}
    shown = page.locator("#board .row").count()
    page.select_option("#filter-labels", label="All")
    assert page.locator("#board .row").count() > shown


def test_a_row_opens_its_runs_and_marks_what_failed(page):
    page.select_option("#filter-labels", label="20 %")
    row = page.locator("#board .row", has_text="Ant")
    assert "1 failed" in row.inner_text()
    row.get_by_role("button").focus()
    page.keyboard.press("Enter")
    runs = page.get_by_role("table", name="Runs of Ant at 20 %")
    assert "failed: loss is NaN <at> step 3" in runs.inner_text()
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"


def test_a_table_is_copied_in_three_formats(page):
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    for form, start in (("LaTeX", "%"), ("Markdown", "### "), ("CSV", "Method,")):
        page.locator("[data-table=main] .copy").get_by_text(form, exact=True).click()
        assert page.evaluate("window.copied").startswith(start)


def test_nothing_is_wider_than_the_screen(page):
    page.locator("#board .method").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_reader_chooses_light_or_dark_once(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert after != before
    page.evaluate("delete document.documentElement.dataset.theme")
    page.click("#theme")
    assert page.locator("#theme").get_attribute("aria-label")


CONTRASTS = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = parse(c).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if ((parse(c)[3] ?? 1) > 0) return c; } return "rgb(255,255,255)"; };
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest("script, svg")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)]; }).filter(([ratio]) => ratio < 4.5); }"""


def test_every_word_can_be_read_and_every_control_has_a_name(page):
    assert page.evaluate(CONTRASTS) == []
    page.click("#theme")
    assert page.evaluate(CONTRASTS) == []
    for control in page.locator("button, select, input").all():
        assert (
            control.get_attribute("aria-label")
            or control.inner_text().strip()
            or control.locator("xpath=..").inner_text()
        )
