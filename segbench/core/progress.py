"""Progress of long work: a bar on a terminal, a plain line every few seconds in a log, which `seen` reads back."""

from __future__ import annotations

import logging
import re
import sys
import time
from dataclasses import dataclass

log = logging.getLogger("segbench.progress")
LINE = "%s: %d of %d %ss %s, %.3g a second, %s left"
READ = re.compile(r": (\d+) of (\d+) \w+ .*, (\S+) a second, (\d+):(\d\d):(\d\d) left$")


@dataclass(frozen=True)
class Seen:
    """What a line of progress says."""

    done: int
    total: int
    seconds_left: int


def span(seconds: float) -> str:
    """Return a time as hours:minutes:seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def seen(line: str) -> Seen | None:
    """Return what a line of a log says of progress, None when it is no such line."""
    found = READ.search(line)
    if found is None:
        return None
    done, total, _, hours, minutes, seconds = found.groups()
    return Seen(int(done), int(total), 3600 * int(hours) + 60 * int(minutes) + int(seconds))


class Progress:
    """Context manager that counts steps of long work."""

    def __init__(self, *, total: int, title: str, start: int = 0, unit: str = "case", every_seconds: float = 15.0):
        self.total, self.title, self.unit, self.every_seconds = total, title, unit, every_seconds
        self.done = start
        self._bar = None
        self._taken = 0
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm  # only where it is seen, so that light environments stay light

            self._bar = tqdm(total=self.total, initial=self.done, desc=self.title, unit=self.unit, leave=False)
        return self

    def advance(self, note: str = "") -> None:
        """Count one step and show it."""
        self.done += 1
        self._taken += 1
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self.done == self.total or now - self._last >= self.every_seconds:
            rate = self._taken / max(now - self._began, 1e-9)
            left = span((self.total - self.done) / rate)
            log.info(LINE, self.title, self.done, self.total, self.unit, note, rate, left)
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
