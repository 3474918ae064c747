"""Write screenshots of a report to a folder, to look at: two widths, light and dark, and the printed pages.

python -m tests.browser.screenshots REPORT/index.html FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.browser.chromium import DESKTOP, OPEN_ALL, PHONE, missing, started

LONGEST = 16_000
"""Tallest picture in pixels; a longer page is cut into several."""


def main(page_path: Path, folder: Path) -> None:
    """Write PNG files, and the print as PDF; its pages as PNG where `pdftoppm` is installed."""
    if reason := missing():
        sys.exit(reason)
    folder.mkdir(parents=True, exist_ok=True)
    with started() as browser:
        for name, (width, height) in (("desktop", DESKTOP), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(page_path.resolve().as_uri())
                page.screenshot(path=folder / f"{name}_{scheme}_folded.png", full_page=True)
                page.evaluate(OPEN_ALL)
                _write_open(page, folder / f"{name}_{scheme}_open", width)
                page.close()
        page = browser.new_page()
        page.goto(page_path.resolve().as_uri())
        page.pdf(path=folder / "print.pdf", prefer_css_page_size=True, print_background=True)
    if shutil.which("pdftoppm"):
        subprocess.run(["pdftoppm", "-r", "70", "-png", folder / "print.pdf", folder / "print"], check=True)


def _write_open(page, stem: Path, width: int) -> None:
    """Write the whole page as pictures of at most LONGEST pixels."""
    total = page.evaluate("document.documentElement.scrollHeight")
    for part, top in enumerate(range(0, total, LONGEST)):
        clip = {"x": 0, "y": top, "width": width, "height": min(LONGEST, total - top)}
        page.screenshot(path=stem.with_name(f"{stem.name}_{part}.png"), full_page=True, clip=clip)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
