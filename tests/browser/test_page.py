"""The committed report pages in a real browser: accessible, quiet, sortable, searchable, linkable, printable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.browser import AXE, PHONE, chromium, opened, started, violations
from tests.paths import ROOT

pytest.importorskip("playwright", reason="playwright is not installed (envs/lock-dev.txt)")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPORTS = [ROOT / "reports" / name for name in ("demo", "real_small")]
OPEN_ALL = "for (const fold of document.querySelectorAll('details')) fold.open = true"
TABLE = "#upstream table.results >> nth=0"
Opened = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The installed browser, once for all tests."""
    with started() as found:
        yield found


@pytest.fixture(params=REPORTS, ids=lambda report: report.name)
def report(request: pytest.FixtureRequest) -> Path:
    """Each committed report."""
    return request.param


@pytest.fixture
def page_of(browser: Browser, report: Path) -> Iterator[Opened]:
    """Open the report's page; the test fails when the page logs an error or asks for another file."""
    pages, said = [], []

    def open_page(**facts: Any) -> Page:
        page = opened(browser, report, **facts)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith("data:") else None)
        pages.append(page)
        page.reload()
        said[:] = [text for text in said if not text.split("#")[0].endswith("index.html")]
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert said == []


def column(page: Page, table: str, index: int) -> list[str]:
    """Return the text of a column of a table's trained methods, as shown."""
    return page.locator(f"{table} >> css=tbody:first-of-type tr").evaluate_all(
        "(rows, at) => rows.map(row => (row.children[at].querySelector('.v') ?? row.children[at]).textContent)",
        index,
    )


def test_axe_is_the_file_that_third_party_names():
    digest = hashlib.sha256(AXE.read_bytes()).hexdigest()
    assert digest in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("facts", [{}, {"color_scheme": "dark"}, {"width": PHONE}], ids=["light", "dark", "phone"])
def test_axe_finds_no_violation_with_everything_open(page_of: Opened, facts: dict[str, Any]):
    page = page_of(**facts)
    page.evaluate(OPEN_ALL)
    assert violations(page) == []


def test_axe_finds_what_is_wrong(page_of: Opened):
    """The check itself: an image without alternative text is found."""
    page = page_of()
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert [found.split()[0] for found in violations(page)] == ["image-alt"]


def test_nothing_is_wider_than_a_phone(page_of: Opened):
    page = page_of(width=PHONE)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_a_column_is_sorted(page_of: Opened, how: str):
    page = page_of()
    before = column(page, TABLE, 2)
    header = page.locator(f"{TABLE} >> css=thead th >> nth=2")

    def turn() -> None:
        if how == "mouse":
            header.click()
        else:
            header.locator("[role=button], button").first.focus()
            page.keyboard.press("Enter")

    turn()
    first = [float(text) for text in column(page, TABLE, 2)]
    turn()
    second = [float(text) for text in column(page, TABLE, 2)]
    assert len(first) > 2
    assert sorted(first) == sorted(float(text) for text in before)
    assert {tuple(first), tuple(second)} == {tuple(sorted(first)), tuple(sorted(first, reverse=True))}
    assert header.get_attribute("aria-sort") in ("ascending", "descending")


def test_cases_are_searched(page_of: Opened):
    page = page_of(fragment="upstream-cases")
    rows = page.locator("#upstream-cases table.cases tbody tr")
    every = rows.count()
    case = rows.first.locator("th").text_content() or ""
    page.locator("#upstream-cases .dt-search input").fill(case)
    found = rows.locator("th").all_text_contents()
    assert 0 < len(found) < every
    assert all(case in text for text in found)


def test_a_link_to_a_case_opens_what_it_lies_in(page_of: Opened):
    page = page_of()
    row = page.locator("#upstream-cases table.cases tbody tr").last
    assert not row.is_visible()
    address = row.get_attribute("id")
    page.evaluate("name => { location.hash = encodeURIComponent(name) }", address)
    page.wait_for_function("document.querySelector('#upstream-cases').open")
    assert page.locator(f'[id="{address}"]').is_visible()
    assert page.evaluate("name => document.getElementById(name).getBoundingClientRect().top < innerHeight", address)


def test_a_permalink_shows_its_row_from_the_start(page_of: Opened):
    page = page_of(fragment="upstream_dice/single_task/random")
    row = page.locator('[id="upstream_dice/single_task/random"]')
    assert row.is_visible()
    assert row.evaluate("row => row.matches(':target')")
    assert "Single-task U-Net" in (row.text_content() or "")


def test_a_picture_of_a_card_is_shown_after_one_click(page_of: Opened):
    page = page_of()
    link = page.locator(".card a", has_text="Picture").first
    target = (link.get_attribute("href") or "")[1:]
    assert not page.locator(f'[id="{target}"] img').is_visible()
    link.click()
    picture = page.locator(f'[id="{target}"] img')
    picture.wait_for(state="visible")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    assert picture.get_attribute("alt")


def test_two_methods_are_compared(page_of: Opened):
    page = page_of(fragment="upstream-pairs")
    table = page.locator("#upstream-pairs table").first
    assert table.is_visible()
    methods = set(page.locator(f"{TABLE} >> css=tbody:first-of-type th.method").all_text_contents())
    named = " ".join(table.locator("tbody tr").all_text_contents())
    assert len(methods) > 2
    assert all(method in named for method in methods)


def test_print_opens_everything_and_hides_controls(page_of: Opened):
    page = page_of()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    assert not page.locator(".dt-search").first.is_visible()
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.scroll')].filter(
            box => !['visible', 'clip'].includes(getComputedStyle(box).overflowX)).map(box => box.ariaLabel)"""
    )
    assert cut == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_without_javascript_everything_is_there(page_of: Opened):
    page = page_of(java_script_enabled=False)
    assert page.locator(TABLE).is_visible()
    fold = page.locator("#upstream-cases")
    fold.locator("> summary").click()
    assert fold.locator("table.cases tbody tr").first.is_visible()
