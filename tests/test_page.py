"""The page in a real browser: it sorts, filters and steps, and asks nobody for anything."""

import json
import shutil

import pytest
from tests.test_report import CLASSES, make_results, write_run
from tests.test_report_tasks import write_landmarks

from semiseg.report.page import write_joint_page, write_page
from semiseg.report.reading import read_results
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


def test_rows_of_equal_titles_open_their_own_runs(browser, tmp_path):
    for name, dice in (("one", 0.4), ("two", 0.6)):
        write_run(tmp_path, name, 0.05, 0, dice, title="Same")
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    for place, score in enumerate(("60.00", "40.00")):
        page.locator("#board .method").nth(place).click()
        runs = page.locator("#board .detail tbody tr")
        assert runs.count() == 1
        assert runs.locator("td").nth(2).inner_text() == score
        page.locator("#board .method").nth(place).click()
    page.close()


def test_a_method_without_labels_stands_beside_all_others_from_the_beginning(browser, tmp_path):
    for labels, dice in ((0.05, 0.5), (0.2, 0.6)):
        write_run(tmp_path, "plain", labels, 0, dice, role="lower")
        write_run(tmp_path, "ant", labels, 0, dice + 0.1)
    free = write_run(tmp_path, "free", 0.05, 0, 0.9)
    record = json.loads((free / "run.json").read_text())
    record["method"]["uses_labels"] = False
    (free / "run.json").write_text(json.dumps(record))
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    bold = page.locator("#board b .method")
    assert page.locator("#filter-labels").input_value() == "5 %"
    assert methods(page) == ["Free", "Ant", "Plain"]
    assert bold.all_inner_texts() == ["Ant"], "another amount of labels is no competition"
    page.select_option("#filter-labels", label="20 %")
    assert methods(page) == ["Free", "Ant", "Plain"]
    page.select_option("#filter-labels", label="0 %")
    assert (methods(page), bold.all_inner_texts()) == (["Free"], ["Free"])
    page.close()


def test_an_interval_beyond_what_a_score_can_be_ends_at_the_axis_and_lies_on_no_number(browser, tmp_path):
    for fold, dice in enumerate((0.9, 0.1, 0.1)):
        write_run(tmp_path, "unsteady", 0.05, fold, dice)
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    lines = (page.locator(f"#board .interval line{kind}").first for kind in (".axis", ":not(.axis)"))
    axis, drawn = (line.bounding_box() for line in lines)
    assert (drawn["x"], drawn["width"]) == pytest.approx((axis["x"], axis["width"]), abs=3)
    assert page.locator("#board .interval .whisker").count() == 0, "the interval does not end there"
    assert "interval -" in page.locator("#board .interval svg").get_attribute("aria-label")
    page.close()


def test_data_sets_are_never_ranked_with_each_other(browser, tmp_path):
    for name, labels, best in (("one", 0.05, 0.9), ("two", 0.2, 0.6)):
        data = {"title": name.title(), "classes": CLASSES, "hash": name}
        write_run(tmp_path / name, "plain", labels, 0, best - 0.2, role="lower", data=data)
        write_run(tmp_path / name, "ant", labels, 0, best, data=data)
        write_run(tmp_path / name, "full", 1.0, 0, best + 0.01, role="upper", data=data)
    contents = [read_results(tmp_path / name) for name in ("one", "two")]
    write_joint_page(contents, [], [], tmp_path, tmp_path / "index.html")
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert methods(page) == ["Full", "Ant", "Plain"]
    page.select_option("#filter-data", label="Two")  # where nothing has 5 % of the labels
    assert methods(page) == ["Full", "Ant", "Plain"]
    assert page.locator("#filter-labels").input_value() == "20 %"
    page.select_option("#filter-data", label="All")
    page.select_option("#filter-labels", label="All")
    rows = [row.split() for row in page.locator("#board .row").all_inner_texts()]
    assert [row[1] for row in rows] == ["One"] * 3 + ["Two"] * 3
    assert "One: Headroom: 21.00 points" in page.locator("#remarks").inner_text()
    page.close()


def test_what_to_know_before_believing_a_ranking_stands_below_it(page):
    said = page.locator("#remarks").inner_text()
    assert "Headroom: 5.00 points" in said
    assert "2 folds: too few to tell a difference from chance." in said


def test_tasks_are_told_apart_where_there_are_several(browser, tmp_path, page):
    assert page.locator("#filter-task").is_hidden()  # one task is no choice
    for name in ("plain", "ant"):
        write_run(tmp_path / "one", name, 0.05, 0, 0.5, role="lower" if name == "plain" else "semi")
    write_landmarks(tmp_path / "two", "bee", 0.25)
    contents = [read_results(tmp_path / name) for name in ("one", "two")]
    write_joint_page(contents, [], [], tmp_path, tmp_path / "index.html")
    other = browser.new_page()
    other.goto((tmp_path / "index.html").as_uri())
    seen = {}
    for task in other.locator("#filter-task option").all_inner_texts():  # the rest follows
        other.select_option("#filter-task", label=task)
        chosen = [other.locator(f"#filter-{name} option:checked").inner_text() for name in ("data", "labels", "metric")]
        seen[task] = (*chosen, sorted(methods(other)))
    assert seen["segmentation"][1:] == ("5 %", "Dice", ["Ant", "Plain"])
    assert seen["localization"][1:] == ("25 %", "Within 2", ["Bee"])
    assert seen["segmentation"][0] != seen["localization"][0]
    other.select_option("#filter-task", label="localization")
    other.select_option("#filter-metric", label="Radial error")
    assert methods(other) == ["Bee"]
    assert "mm" in other.locator("#board [data-column=score]").inner_text()
    other.select_option("#filter-data", label=seen["segmentation"][0])  # and the task follows the data
    assert sorted(methods(other)) == ["Ant", "Plain"]
    assert other.locator("#filter-task").input_value() == "segmentation"
    other.select_option("#viewer-data", index=1)
    assert "Radial error" in other.locator("#viewer-metric").inner_text()
    assert "Dice" not in other.locator("#viewer-metric").inner_text()
    assert "1 of " in other.locator("#case").inner_text(), "cases of a task are shown by its own metrics"
    other.close()


def test_a_row_opens_its_runs_and_marks_what_failed(page):
    page.select_option("#filter-labels", label="20 %")
    row = page.locator("#board .row", has_text="Ant")
    assert "1 failed" in row.inner_text()
    row.get_by_role("button").focus()
    page.keyboard.press("Enter")
    runs = page.get_by_role("table", name="Runs of Ant at 20 %")
    assert "failed: loss is NaN <at> step 3" in runs.inner_text()
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"


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


def shown_case(page):
    return page.locator("#case .case-name b").inner_text()


def test_the_keyboard_steps_through_cases_and_stays_at_the_ends(page):
    assert shown_case(page) == "a"
    page.focus("#case")
    for key, case in (("ArrowRight", "b"), ("ArrowRight", "b"), ("ArrowLeft", "a"), ("End", "b"), ("Home", "a")):
        page.keyboard.press(key)
        assert shown_case(page) == case
    page.click("#next")
    assert shown_case(page) == "b"


def test_a_point_opens_its_case_by_mouse_and_by_keyboard(page):
    page.locator("#scatter .point:not(.current)").dispatch_event("click")
    assert shown_case(page) == "b"
    page.focus("#scatter .current")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert shown_case(page) == "a"
    assert page.evaluate("document.activeElement.dataset.case") == "0"


def test_the_worst_case_of_both_methods_comes_first(browser, tmp_path):
    for name, role, scores in (("plain", "lower", [0.9, 0.9, 0.8, 0.8]), ("ant", "semi", [0.2, 0.2, 0.95, 0.95])):
        write_run(tmp_path, name, 0.05, 0, scores, role=role)
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    assert "a 1 of 2; Dice A 90.00, B 20.00 %" in page.locator("#case").inner_text()
    page.select_option("#viewer-b", "0")
    assert "b 1 of 2; Dice A 80.00, B 80.00 %" in page.locator("#case").inner_text()
    page.close()


def test_outlines_lie_around_the_pixels_of_their_masks(page):
    path = page.locator("#case .outline.reference path").last.get_attribute("d")
    around = {"M2 2H6", "M2 6H6", "M2 2V6", "M6 2V6", "M8 6H12", "M8 9H12", "M8 6V9", "M12 6V9"}
    assert {"M" + part for part in path.split("M")[1:]} == around
    page.locator(".layer.reference input").uncheck()
    assert page.locator("#case .outline.reference").count() == 0
    page.select_option("#viewer-structure", label="wall")
    path = page.locator("#case .outline.b path").last.get_attribute("d")
    assert {"M" + part for part in path.split("M")[1:]} == {"M3 2H7", "M3 6H7", "M3 2V6", "M7 2V6"}


def test_a_method_whose_masks_were_not_kept_does_not_look_like_one_that_found_nothing(browser, tmp_path):
    for name, role in (("plain", "lower"), ("ant", "semi")):
        write_run(tmp_path, name, 0.05, 0, 0.5, role=role)
    next(tmp_path.glob("runs/ant/**/examples.npz")).unlink()
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    assert "No picture of what B predicted was kept." in page.locator("#case").inner_text()
    assert page.locator("#case .picture").get_attribute("aria-label") == "Case a with outlines of Reference, A"
    page.close()


def test_a_page_without_pictures_says_what_makes_them(browser, tmp_path):
    (write_run(tmp_path, "plain", 0.05, 0, 0.5, role="lower") / "examples.npz").unlink()
    page = browser.new_page()
    page.goto(write(tmp_path, tmp_path / "index.html").as_uri())
    assert "“semiseg run” keeps them" in page.locator("#case").inner_text()
    page.close()


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


def test_a_screen_reader_has_a_name_for_every_picture_table_and_part(page):
    for kind in (
        "svg[role=img]",
        "svg[role=group]",
        "img",
        "[role=region]",
        "[role=group]",
        "section",
        "nav",
        "#board",
    ):
        for element in page.locator(kind).all():
            assert element.get_attribute("aria-label") or element.get_attribute("alt"), kind
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("[role=status]").count() >= 2  # what a filter and a step have changed is said


def test_a_wide_table_is_scrolled_by_keyboard_while_methods_stay_in_sight(page):
    page.set_viewport_size({"width": 360, "height": 700})
    table = page.locator("[data-table=full] .scroll")
    table.focus()
    before = table.locator("td.name").first.bounding_box()["x"]
    table.evaluate("(element) => element.scrollTo(400, 0)")
    assert table.evaluate("(element) => element.scrollLeft") > 100
    assert table.locator("td.name").first.bounding_box()["x"] <= before
    assert table.locator("td.name").first.bounding_box()["x"] >= 0
    assert table.evaluate("(element) => document.activeElement === element")
