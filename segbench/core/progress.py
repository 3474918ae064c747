"""Progress of long work: a bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time

log = logging.getLogger("segbench.progress")


class Progress:
    """Context manager that counts steps of long work."""

    def __init__(self, *, total: int, title: str, start: int = 0, unit: str = "case", every_seconds: float = 15.0):
        self.total, self.title, self.unit, self.every_seconds = total, title, unit, every_seconds
        self.done = start
        self._bar = None
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm  # only where it is seen, so that light environments stay light

            self._bar = tqdm(total=self.total, initial=self.done, desc=self.title, unit=self.unit, leave=False)
        return self

    def advance(self, note: str = "") -> None:
        """Count one step and show it."""
        self.done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self.done == self.total or now - self._last >= self.every_seconds:
            log.info("%s: %d of %d %ss %s", self.title, self.done, self.total, self.unit, note)
            self._last = now

    def go_back_to(self, done: int) -> None:
        """Show that work continues from an earlier step."""
        self.done = done
        if self._bar is not None:
            self._bar.n = done
            self._bar.refresh()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
