"""The committed pages in a real headless Chromium: accessible, self-contained, and usable by keyboard, link and print.

`make test-browser`. The reports of another folder are tested with SEGBENCH_REPORTS=FOLDER, which holds them by name.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from segbench.reporting.run import Run
from segbench.reporting.statistics import reference_method
from tests.browser.chromium import DESKTOP, OPEN_ALL, PHONE, missing, started
from tests.paths import ROOT

AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
REPORTS = Path(os.environ.get("SEGBENCH_REPORTS", ROOT / "reports"))
A4_PIXELS = 718
"""Width of the printed area: 210 mm less two margins of 10 mm, at 96 pixels per inch."""
PRINT_SHRINKS = 1.3
"""Chromium shrinks a print until its widest table fits, up to a factor of 2; wider than this is too small to read."""
SCREENS = [(scheme, size) for scheme in ("light", "dark") for size in (DESKTOP, PHONE)]


@pytest.fixture(scope="module")
def browser():
    if reason := missing():
        pytest.skip(reason)
    with started() as running:
        yield running


@pytest.fixture(scope="module", params=["demo", "real_small", "real"])
def report(request) -> Path:
    return REPORTS / request.param


@pytest.fixture(scope="module")
def run(report) -> Run:
    return Run(report)


class Opened:
    """A page with everything it asked for and everything it complained about."""

    def __init__(self, browser, report: Path, fragment: str = "", **options):
        self.context = browser.new_context(viewport=dict(zip(("width", "height"), DESKTOP, strict=True)), **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.address = (report / "index.html").resolve().as_uri()
        self.page.goto(self.address + fragment)

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()


def first_method(run: Run):
    return next(method for method in run.methods_of("upstream") if method.trained)


def csv_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_axe_is_the_published_one_and_its_licence_lies_beside_it():
    third_party = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() in third_party
    assert "Mozilla Public License" in AXE.with_name("axe-LICENSE.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_axe_finds_no_violation(browser, report):
    opened = Opened(browser, report)
    with opened as page:
        page.evaluate(OPEN_ALL)
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = []
        for scheme, (width, height) in SCREENS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": height})
            result = page.evaluate("axe.run({resultTypes: ['violations'], elementRef: false})")
            assert result["testEngine"]["name"] == "axe-core"
            assert len(result["passes"]) > 15
            found += [
                f"{scheme} {width}: {item['id']} ({len(item['nodes'])}): {item['nodes'][0]['html'][:160]}"
                for item in result["violations"]
            ]
        assert found == []


def test_axe_finds_a_violation_that_is_put_in(browser, report):
    with Opened(browser, report) as page:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        page.evaluate(
            "document.querySelector('h1').innerHTML = '<span style=\"color:#ccc;background:#fff\">pale</span>'"
        )
        result = page.evaluate("axe.run('header', {runOnly: ['color-contrast']})")
        assert [item["id"] for item in result["violations"]] == ["color-contrast"]


def test_nothing_is_asked_of_elsewhere_and_nothing_is_complained_about(browser, report):
    opened = Opened(browser, report)
    with opened as page:
        page.evaluate(OPEN_ALL)
        page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.locator("th[aria-sort], th .dt-column-order").count() > 20  # the scripts ran
        assert {url for url in opened.requests if not url.startswith("data:")} == {opened.address}
        assert opened.complaints == []


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_column_of_the_leaderboard_is_sorted(browser, report, way):
    rows = csv_rows(report / "tables" / "upstream_dice.csv")
    means = {
        row["method"]: float(row["mean"])
        for row in rows
        if row["task"] == "mean over tasks" and row["kind"] != "control" and row["mean"]
    }
    shown = "#upstream > .scroll table.results tbody:nth-of-type(1) tr[id] th.method"
    directions = set()
    with Opened(browser, report) as page:
        header = page.locator("#upstream > .scroll table.results thead th").nth(2)
        for _ in range(2):
            before = header.get_attribute("aria-sort")
            if way == "mouse":
                header.click()
            else:
                header.evaluate("(node) => (node.querySelector('[tabindex=\"0\"], button') ?? node).focus()")
                page.keyboard.press("Enter")
            page.wait_for_function(
                "([node, before]) => node.ariaSort !== before", arg=[header.element_handle(), before]
            )
            direction = header.get_attribute("aria-sort")
            assert direction in ("ascending", "descending")
            found = [title for title in page.locator(shown).all_inner_texts() if title in means]
            assert found == sorted(found, key=means.get, reverse=direction == "descending")
            assert set(found) == set(means)
            directions.add(direction)
    assert len(directions) == 2


def test_a_search_leaves_the_matching_cases_only(browser, report, run):
    task = run.tasks("upstream")[0]
    listed = [row for row in csv_rows(report / "tables" / "upstream_dice_every_case.csv") if row["task"] == task.name]
    case = listed[0]["case"]
    with Opened(browser, report, "#upstream-cases") as page:
        rows = page.locator("#upstream-cases table.cases tbody tr")
        everything = rows.count()
        assert page.locator("#upstream-cases").evaluate("(fold) => fold.open")
        search = page.locator("#upstream-cases input[type=search]")
        search.fill(case)
        texts = rows.all_inner_texts()
        assert 0 < len(texts) < everything
        assert all(case in text for text in texts)
        search.fill("no such case")
        assert page.locator("#upstream-cases table.cases tbody tr[id]").count() == 0
        search.fill("")
        assert rows.count() == everything


def test_a_link_opens_and_marks_a_case(browser, report, run):
    row = csv_rows(report / "tables" / "upstream_dice_every_case.csv")[-1]
    name = f"case/upstream/{row['task']}/{row['case']}"
    with Opened(browser, report, f"#{name}") as page:
        assert_marked(page, name)


def test_the_hardest_case_opens_with_its_picture(browser, report):
    with Opened(browser, report) as page:
        links = page.locator(".card a", has_text="Picture")
        if links.count() == 0:
            record = json.loads((report / "run.json").read_text(encoding="utf-8"))
            assert not any(picture["may_be_shown"] for picture in record["pictures"])
            return
        name = links.first.get_attribute("href")[1:]
        image = page.locator(f'[id="{name}"] img')
        assert not image.is_visible()
        links.first.click()
        image.wait_for(state="visible")
        assert image.evaluate("(node) => node.naturalWidth") > 300
        assert len(image.get_attribute("alt")) > 40


def assert_marked(page, name: str) -> None:
    target = page.locator(f'[id="{name}"]')
    target.wait_for(state="visible")
    assert target.evaluate("(node) => node.matches(':target') && getComputedStyle(node).outlineStyle") == "solid"
    page.wait_for_function(  # the page scrolls smoothly
        "([name, height]) => { const top = document.getElementById(name).getBoundingClientRect().top; "
        "return 0 <= top && top < height; }",
        arg=[name, DESKTOP[1]],
    )


@pytest.mark.parametrize("metric", ["dice", "hd95"])
@pytest.mark.parametrize("what", ["row", "cell"])
def test_a_link_opens_and_marks_a_row_or_a_cell_of_a_table(browser, report, run, metric, what):
    key = "/".join(first_method(run).key)
    task = f"{run.tasks('upstream')[0].name}/" if what == "cell" else ""
    name = f"upstream/{metric}/{task}{key}"
    with Opened(browser, report, f"#{name}") as page:
        assert_marked(page, name)
        expected = "TD" if what == "cell" else "TR"
        assert page.locator(f'[id="{name}"]').evaluate("(node) => node.tagName") == expected


def test_two_methods_are_compared(browser, report, run):
    reference = reference_method(run, "upstream").title
    others = [method.title for method in run.methods_of("upstream") if method.trained and method.title != reference]
    fold = "#upstream-pairs"
    with Opened(browser, report, fold) as page:
        first, second = (page.locator(f"{fold} .compare select").nth(i) for i in range(2))
        rows = page.locator(f"{fold} > .scroll tbody tr:not([hidden])")
        assert rows.count() == len(others) * (len(others) + 1) // 2
        for chosen in (others[0], others[-1]):
            first.select_option(reference)
            second.select_option(chosen)
            assert rows.count() == 1
            assert {reference, chosen} == set(rows.first.locator("th, td").all_inner_texts()[:2])
            figures = [node for node in page.locator(f"{fold} details.pair figure").all() if node.is_visible()]
            assert len(figures) == 1
            caption = figures[0].locator("figcaption").inner_text()
            assert f"{chosen} minus {reference} by task" in caption
        first.select_option("")
        assert rows.count() == len(others)


def test_a_phone_scrolls_tables_and_not_the_page(browser, report):
    with Opened(browser, report) as page:
        page.set_viewport_size(dict(zip(("width", "height"), PHONE, strict=True)))
        page.evaluate(OPEN_ALL)
        widths = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
        assert max(widths) == PHONE[0]


def test_the_print_has_no_controls_and_all_columns(browser, report):
    with Opened(browser, report) as page:
        page.emulate_media(media="print")
        page.set_viewport_size({"width": A4_PIXELS, "height": 1000})
        for control in ("nav", ".skip", ".compare", ".dt-search", ".dt-column-order"):
            assert not any(node.is_visible() for node in page.locator(control).all())
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        cut = page.evaluate(
            """(width) => [...document.querySelectorAll("table, figure img")]
                .filter((node) => node.getBoundingClientRect().right > width + 1)
                .map((node) => (node.caption?.textContent ?? node.alt).slice(0, 60))""",
            A4_PIXELS * PRINT_SHRINKS,
        )
        assert cut == []
        hidden = page.evaluate(
            "[...document.querySelectorAll('table')].filter((table) => !table.getBoundingClientRect().height).length"
        )
        assert hidden == 0


def test_the_page_says_everything_without_scripts(browser, report, run):
    with Opened(browser, report, java_script_enabled=False) as page:
        table = page.locator("#upstream > .scroll table.results")
        text = table.inner_text()
        for method in run.methods_of("upstream"):
            assert method.title in text
        assert not any(node.is_visible() for node in page.locator(".compare").all())
        fold = page.locator("#upstream-pairs")
        assert not fold.locator("table").first.is_visible()
        fold.locator("summary").first.click()
        assert fold.locator("table").first.is_visible()
        fold.locator("details.pair summary").first.click()
        assert fold.locator("details.pair figure img").first.is_visible()
        assert len(re.findall(r"\d", page.locator(".cards").inner_text())) > 10
