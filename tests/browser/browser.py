"""A headless Chromium that is installed on this machine, driven by Playwright, and axe-core beside it.

`python -m tests.browser.browser REPORT --out FOLDER` writes pictures of a page: wide, on a phone, dark and as printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
"""npm `axe-core` 4.14.1, unmodified; THIRD_PARTY.md has its hash."""
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
WIDE, PHONE = 1440, 390


def chromium() -> str | None:
    """Return the program of an installed Chromium or Chrome, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def started() -> Iterator[Browser]:
    """Start the installed browser and end it afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Browser, report: Path, *, width: int = WIDE, fragment: str = "", **context: Any) -> Page:
    """Open the page of a report, as a file and offline.

    Args:
        browser: the browser.
        report: folder of the report.
        width: of the window, in CSS pixels.
        fragment: what follows `#` in the address.
        context: further facts of the window, such as `color_scheme` or `java_script_enabled`.
    """
    # axe is added by the driver: the page's own Content-Security-Policy refuses scripts of others, as it should.
    window = browser.new_context(viewport={"width": width, "height": 1000}, offline=True, bypass_csp=True, **context)
    page = window.new_page()
    page.goto((report / "index.html").resolve().as_uri() + (f"#{fragment}" if fragment else ""))
    return page


def violations(page: Page) -> list[str]:
    """Return what axe finds on a page: rule, and the first element of each."""
    page.add_script_tag(path=str(AXE))
    options = json.dumps({"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]})
    found = page.evaluate(f"async () => (await axe.run(document, {options})).violations")
    return [f"{item['id']} ({len(item['nodes'])}): {item['nodes'][0]['html'][:160]}" for item in found]


def write_pictures(report: Path, folder: Path) -> list[Path]:
    """Write pictures of a report's page: first screen wide, on a phone and dark; the whole as a printed PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with started() as browser:
        for name, width, colours in (("wide", WIDE, "light"), ("phone", PHONE, "light"), ("dark", WIDE, "dark")):
            page = opened(browser, report, width=width, color_scheme=colours)
            written.append(folder / f"{report.name}-{name}.png")
            page.screenshot(path=written[-1])
            page.context.close()
        page = opened(browser, report)
        written.append(folder / f"{report.name}-print.pdf")
        page.pdf(path=written[-1], prefer_css_page_size=True, print_background=True)
    return written


def main() -> None:
    """Write the pictures of a report that is named on the command line."""
    parser = argparse.ArgumentParser(description=write_pictures.__doc__)
    parser.add_argument("report", type=Path, help="folder of a report")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    for path in write_pictures(args.report, args.out):
        print(path)


if __name__ == "__main__":
    main()
