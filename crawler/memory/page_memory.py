"""What is remembered of a source's pages from run to run, so that the next one fetches less.

Nothing here is data: whatever goes wrong costs a warning and another fetch of some pages, never a crawl.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from crawler.exceptions import StoreDamaged, StoreFailed
from crawler.memory.key_index import KeyIndex
from crawler.memory.page_store import PageStore

logger = logging.getLogger(__name__)

T = TypeVar("T")
Facts = list[Any]

DAY_SECONDS = 86_400.0
# Written one by one, marks would cost the card 4 kB each. What a kill takes with it is fetched again.
BATCH_PAGES = 100
LINGER_SECONDS = 10.0
CALL_SECONDS = 10.0
_READ_AHEAD = 63
# Old pages are forgotten a few at a time, so that no call takes long.
_FORGOTTEN_AT_ONCE = 1000
_MAX_WAITING = 20_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a page is remembered, and how many are: of more, those written longest ago are forgotten."""

    expiry_seconds: float = 90 * DAY_SECONDS
    max_pages: int = 500_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of a page: when it was last read in full (seconds since the epoch), and facts."""

    read_at: int
    facts: Facts


class PageMemory:
    """The memory of one source. The file is touched by a thread of its own; no method here waits for it.

    When the file fails it is out of use for the rest of the run: no page is known any more.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention,
        *,
        is_reset: bool = False,
        linger_seconds: float = LINGER_SECONDS,
        call_seconds: float = CALL_SECONDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Given the file and how long to keep what, return its memory, not opened.

        ``is_reset`` forgets everything first.
        """
        self.path = path
        self.is_in_use = False
        self._retention = retention
        self._is_reset = is_reset
        self._linger_seconds = linger_seconds
        self._wall_clock = wall_clock
        self._index = KeyIndex()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any] | None]] = SimpleQueue()
        self._is_over = False
        self._has_ended = False
        # A run meets pages in much the same order as the last: what will be asked next, read ahead.
        self._ahead: dict[bytes, bytes] = {}
        # Of the thread alone:
        self._store = PageStore(path, call_seconds=call_seconds)
        self._unwritten: dict[bytes, bytes | None] = {}
        self._write_at = math.inf
        self._pages = 0
        self._was_replaced = False

    # -- one thread, the reactor's: these return at once ---------------------------------------

    def open(self) -> "Future[None]":
        """Begin. The answer comes when the memory can be asked, or is known to be out of use."""
        Thread(target=self._work, name="page-memory", daemon=True).start()
        return self._ask(self._open)

    def is_known(self, key: bytes) -> bool:
        """Return whether it is worth to ``recall`` a page."""
        return self.is_in_use and _digest(key) in self._index

    def recall(self, key: bytes) -> "Future[Remembered | None]":
        """Given a page's key, answer what is remembered of it: None for nothing, or for too long ago."""
        hashed = _digest(key)
        with suppress(KeyError, StoreDamaged):
            answer: Future[Remembered | None] = Future()
            answer.set_result(self._remembered(self._ahead[hashed]))
            return answer
        return self._ask(partial(self._read, hashed))

    def note(self, key: bytes, facts: Facts, *, read_at: int | None = None) -> None:
        """Remember a page whose items are all safe. ``facts`` have a JSON form.

        ``read_at`` is when it was last read in full, if that was not just now.
        """
        if self._can_take():
            moment = int(self._wall_clock()) if read_at is None else read_at
            hashed = _digest(key)
            self._ahead.pop(hashed, None)
            is_new = self._index.add(hashed)
            self._jobs.put((partial(self._change, hashed, _encoded(moment, facts), is_new), None))

    def forget(self, key: bytes) -> None:
        """Forget a page."""
        if self.is_known(key) and self._can_take():
            hashed = _digest(key)
            self._ahead.pop(hashed, None)
            self._jobs.put((partial(self._change, hashed, None), None))

    def close(self) -> "Future[None]":
        """Write what is not written yet, and end. The answer comes when the file is closed."""
        return self._ask(self._close)

    def give_up(self, reason: object) -> None:
        """Put the memory out of use for the rest of the run, and say so once. From any thread."""
        if not self._is_over:
            self._is_over = True
            self.is_in_use = False
            logger.warning(
                "The page memory %s is out of use, so this run fetches pages again: %s", self.path, reason
            )

    def _ask(self, job: Callable[[], T]) -> "Future[T]":
        answer: Future[T] = Future()
        self._jobs.put((job, answer))
        if self._has_ended:
            self._turn_away()
        return answer

    def _can_take(self) -> bool:
        if self._jobs.qsize() > _MAX_WAITING:
            self.give_up(f"it does not keep up, {_MAX_WAITING} pages wait for it; check the card")
        return self.is_in_use

    # -- its own thread ------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_over:
            try:
                # No batch waits for ever, and a thread that has nothing to write sleeps.
                wait = self._write_at - time.monotonic()
                job, answer = self._jobs.get(timeout=max(0.0, wait) if wait < math.inf else None)
            except Empty:
                job, answer = self._write, None
            self._do(job, answer)
        self._store.close()
        self._has_ended = True
        self._turn_away()

    def _do(self, job: Callable[[], T], answer: "Future[T | None] | None") -> None:
        if answer is not None and not answer.set_running_or_notify_cancel():
            return
        result = None
        try:
            result = job()
        except StoreDamaged as error:
            self._begin_anew(error)
        except StoreFailed as error:
            self.give_up(error)
        except Exception as error:  # noqa: BLE001 -- a bug here must not cost the crawl either
            self.give_up(repr(error))
        if answer is not None:
            answer.set_result(result)

    def _turn_away(self) -> None:
        """Answer those who ask after the end."""
        with suppress(Empty):
            while True:
                _job, answer = self._jobs.get_nowait()
                if answer is not None and answer.set_running_or_notify_cancel():
                    answer.set_result(None)

    def _open(self) -> None:
        self._store.open(is_reset=self._is_reset)
        for starts in self._store.key_starts():
            self._index.load(starts)
        self._pages = len(self._index)
        self._forget_old()
        self.is_in_use = True

    def _close(self) -> None:
        self.is_in_use = False
        self._write()
        self._store.close()
        self._is_over = True

    def _read(self, hashed: bytes) -> Remembered | None:
        if hashed in self._unwritten:
            value = self._unwritten[hashed]
        else:
            found = self._store.get(hashed, ahead=_READ_AHEAD)
            value = found.get(hashed)
            self._ahead = {key: each for key, each in found.items() if key not in self._unwritten}
        return None if value is None else self._remembered(value)

    def _remembered(self, value: bytes) -> Remembered | None:
        remembered = _decoded(value)
        return None if self._is_expired(remembered) else remembered

    def _change(self, hashed: bytes, value: bytes | None, is_new: bool = False) -> None:
        if not self._unwritten:
            self._write_at = time.monotonic() + self._linger_seconds
        self._unwritten[hashed] = value
        self._ahead.pop(hashed, None)
        self._pages += is_new
        if len(self._unwritten) >= BATCH_PAGES or time.monotonic() >= self._write_at:
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            self._store.write(self._unwritten)
            self._unwritten = {}
            self._forget_old()
        self._write_at = math.inf

    def _forget_old(self) -> None:
        """Forget what is too old, or too much: some at a time, and cheaply if there is nothing to do."""
        excess = self._pages - self._retention.max_pages
        oldest = self._store.oldest(1 if excess <= 0 else _FORGOTTEN_AT_ONCE)
        if oldest and excess <= 0 and self._is_expired(_decoded(oldest[0][1])):
            oldest = self._store.oldest(_FORGOTTEN_AT_ONCE)
        last = None
        for number, (place, value) in enumerate(oldest):
            if number >= excess and not self._is_expired(_decoded(value)):
                break
            last = place
            self._pages -= 1
        if last is not None:
            self._store.forget_through(last)

    def _is_expired(self, remembered: Remembered) -> bool:
        # A time to come is believed: the clock of a Pi may be behind until it has met the network.
        return self._wall_clock() - remembered.read_at > self._retention.expiry_seconds

    def _begin_anew(self, damage: StoreDamaged) -> None:
        if self._was_replaced:
            self.give_up(f"damaged again: {damage}")
            return
        self._was_replaced = True
        self._ahead = {}
        try:
            self._store.replace()
        except StoreFailed as error:
            self.give_up(error)
            return
        self._pages = 0
        self.is_in_use = True
        logger.warning(
            "The page memory %s was damaged (%s). It begins anew: every page is fetched once more. "
            "If it happens again, check the card",
            self.path,
            damage,
        )


def _digest(key: bytes) -> bytes:
    """Return the sixteen bytes that stand for a key of any length."""
    return blake2b(key, digest_size=16).digest()


def _encoded(read_at: int, facts: Facts) -> bytes:
    return json.dumps([read_at, *facts], separators=(",", ":")).encode()


def _decoded(value: bytes) -> Remembered:
    try:
        read_at, *facts = json.loads(value)
        return Remembered(int(read_at), facts)
    except (ValueError, TypeError) as error:
        raise StoreDamaged(f"a page's facts are not JSON: {value[:80]!r}") from error
