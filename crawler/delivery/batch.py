"""The bounded queue between a crawl and its courier: items in RAM, cut into batches of one stream."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from crawler.records import DeadLetter, Record

Entry = Record | DeadLetter


@dataclass(frozen=True, slots=True)
class Limits:
    """How much waits in RAM, and when a batch is cut: at its size, or ``linger_seconds`` after its first."""

    batch_max_items: int = 500
    batch_max_bytes: int = 512 * 1024
    linger_seconds: float = 1.0
    queue_max_items: int = 2000
    queue_max_bytes: int = 8 * 1024 * 1024


class Queue:
    """Entries in order of arrival. ``offer`` and ``take`` are called from different threads."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._arrived_at: deque[float] = deque()
        self._bytes = 0
        self._taken = 0
        self._urgent = False
        self._closed = False

    def offer(self, entry: Entry) -> bool:
        """Given an entry, queue it and return True; return False, and do nothing, if there is no room.

        An entry larger than the whole queue is taken when nothing else is in RAM.
        """
        size = _size(entry)
        with self._changed:
            held = len(self._entries) + self._taken
            if held and (
                held >= self._limits.queue_max_items or self._bytes + size > self._limits.queue_max_bytes
            ):
                return False
            self._entries.append(entry)
            self._arrived_at.append(self._clock())
            self._bytes += size
            if len(self._entries) == 1 or self._is_ripe():
                self._changed.notify()
            return True

    def take(self, timeout_seconds: float) -> list[Entry]:
        """Return the next batch, waiting until it is full or has lingered; [] after ``timeout_seconds``.

        Its entries stay counted as held until ``release``. A batch has one stream and one kind.
        """
        give_up_at = self._clock() + timeout_seconds
        with self._changed:
            while not self._is_ripe():
                now = self._clock()
                wake_at = give_up_at
                if self._arrived_at:
                    lingered_at = self._arrived_at[0] + self._limits.linger_seconds
                    if now >= lingered_at:
                        break
                    wake_at = min(give_up_at, lingered_at)
                if now >= give_up_at or self._closed:
                    return []
                self._changed.wait(wake_at - now)
            return self._cut()

    def release(self, batch: list[Entry]) -> None:
        """The batch has left RAM: there is room for as much again."""
        with self._changed:
            self._taken -= len(batch)
            self._bytes -= sum(map(_size, batch))
            self._changed.notify_all()

    def hasten(self, *, closing: bool = False) -> None:
        """Cut batches without lingering until the queue is empty; for ever if ``closing``."""
        with self._changed:
            self._urgent = True
            self._closed = self._closed or closing
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """How many entries are in RAM, queued or taken and not yet released."""
        with self._changed:
            return len(self._entries) + self._taken

    @property
    def closed(self) -> bool:
        """True once nothing more will be waited for."""
        return self._closed

    def wait_until_empty(self, timeout_seconds: float) -> bool:
        """Return True once nothing is held, False after ``timeout_seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._entries and not self._taken, timeout_seconds)

    def _is_ripe(self) -> bool:
        return bool(self._entries) and (
            self._urgent
            or len(self._entries) >= self._limits.batch_max_items
            or self._bytes >= self._limits.batch_max_bytes
        )

    def _cut(self) -> list[Entry]:
        first = self._entries[0]
        batch: list[Entry] = []
        size = 0
        while (
            self._entries
            and len(batch) < self._limits.batch_max_items
            and (not batch or size + _size(self._entries[0]) <= self._limits.batch_max_bytes)
            and self._entries[0].stream == first.stream
            and type(self._entries[0]) is type(first)
        ):
            entry = self._entries.popleft()
            self._arrived_at.popleft()
            size += _size(entry)
            batch.append(entry)
        self._taken += len(batch)
        if not self._entries:
            self._urgent = self._closed
        return batch


def _size(entry: Entry) -> int:
    return len(entry.line) if isinstance(entry, Record) else len(entry.payload)
