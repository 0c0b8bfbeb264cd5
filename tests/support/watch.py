"""A figure of a process that is known only while it runs."""

import threading
from collections.abc import Callable
from typing import Self


class Watch:
    """Asks for a figure every few milliseconds, until it is left or the process has ended."""

    def __init__(self, figure: Callable[[], int]) -> None:
        """Given how to ask, return a context manager that asks."""
        self._figure = figure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.last = 0
        self.highest = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self.last = self._figure()
            except (OSError, KeyError, ValueError, IndexError):
                return
            self.highest = max(self.highest, self.last)
