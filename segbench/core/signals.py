"""Signals that end or warn a long job: work goes on to a point where it can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class SaveSignals:
    """Context manager: SIGTERM and SIGINT ask to save and end, SIGUSR1 asks to save and go on.

    A second SIGTERM or SIGINT has its usual effect at once. Outside the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self.ended_by: int | None = None
        self.asked_to_save = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SaveSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._end)
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._save)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.ended_by = number
        self.asked_to_save = True
        signal.signal(number, self._before[number])

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_save = True

    def raise_if_ended(self) -> None:
        """End the process as the signal asked: `KeyboardInterrupt` for SIGINT, else exit status 128 + the signal."""
        if self.ended_by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.ended_by is not None:
            raise SystemExit(128 + self.ended_by)
