"""A headless Chromium of this machine, driven by Playwright; both are optional."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
VARIABLE = "SEGBENCH_CHROMIUM"
"""Environment variable that names the program where none of PROGRAMS is on the path."""
DESKTOP, PHONE = (1440, 900), (390, 844)
"""Widths and heights of the two screens, in CSS pixels."""


def program() -> str | None:
    """Return the path of the browser, None without one."""
    named = os.environ.get(VARIABLE)
    return next(filter(None, map(shutil.which, (named, *PROGRAMS) if named else PROGRAMS)), None)


def missing() -> str | None:
    """Return what has to be installed before a browser can start, None where nothing is missing."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: pip install -r envs/lock-dev.txt"
    if program() is None:
        return f"no {', '.join(PROGRAMS)} on the path: install Chromium, or name it in {VARIABLE}"
    return None


@contextmanager
def started() -> Iterator:
    """Yield a running browser, where nothing is `missing`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program())
        yield browser
        browser.close()


OPEN_ALL = """() => {
  for (const fold of document.querySelectorAll("details")) { fold.removeAttribute("name"); fold.open = true; }
}"""
"""JavaScript that opens every fold, so that nothing of the page is hidden."""
