"""A SQLite file on the card that several processes share and that survives what a card suffers.

Preallocated to its cap, so that another program filling the card cannot stop it; checked when opened;
set aside, never deleted, when it is damaged, and its readable rows taken over.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crawler import sqlite
from crawler.exceptions import CardError, CardFull

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite.Connection], T]

_JOURNAL_PAGES = 128
_LARGEST_BLOB_BYTES = 256 * 1024 * 1024
# A page of a large value holds four bytes less: the number of the next one.
_VALUE_PAGE_BYTES = sqlite.PAGE_BYTES - 4
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds. ``script`` makes the tables if they are missing; each has a key ``id``."""

    version: int
    script: str
    tables: tuple[str, ...]


class DurableDatabase:
    """One connection to the file. May be used from any thread, one call at a time."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        *,
        max_bytes: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Given the file, what it holds and its cap, open it, or make it. Raise CardError."""
        self.path = path
        self._layout = layout
        self._max_pages = max(64, max_bytes // sqlite.PAGE_BYTES)
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._inode = -1
        try:
            self._gate = sqlite.open_file(path.with_suffix(".lock"))
        except OSError as error:
            raise self._translated(error) from error
        try:
            with self._gate_held(fcntl.LOCK_EX):
                self._connection = self._opened()
        except BaseException:
            os.close(self._gate)
            raise

    def read(self, work: Work[T]) -> T:
        """Run ``work`` on the connection. Raise CardError."""
        with self._lock:
            try:
                with self._gate_held(fcntl.LOCK_SH):
                    self._follow_the_path()
                    return work(self._connection)
            except (sqlite.DatabaseError, OSError) as error:
                if not sqlite.is_damage(error):
                    raise self._translated(error) from error
                damage = str(error)
            try:
                with self._gate_held(fcntl.LOCK_EX):
                    self._replace_unless_replaced(damage)
                    return work(self._connection)
            except (sqlite.DatabaseError, OSError) as error:
                raise self._translated(error) from error

    def change(self, work: Work[T]) -> T:
        """Run ``work`` in one transaction: all of it is on the card when this returns, or none.

        Raise CardFull or CardError; after an error at the commit itself it may be there all the same.
        """

        def in_transaction(connection: sqlite.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self.read(in_transaction)

    def used_and_cap_bytes(self, connection: sqlite.Connection) -> tuple[int, int]:
        """Return the bytes in use and the cap. Reads one page."""
        (total,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return (total - free) * sqlite.PAGE_BYTES, self._max_pages * sqlite.PAGE_BYTES

    def require_room(self, connection: sqlite.Connection, value_bytes: int) -> None:
        """Raise CardFull unless a value of this size fits under the cap."""
        used, cap = self.used_and_cap_bytes(connection)
        needed = (value_bytes // _VALUE_PAGE_BYTES + 4) * sqlite.PAGE_BYTES
        if used + needed > cap:
            raise CardFull(f"{self.path} is full: {used} of {cap} bytes in use, {needed} more needed")

    def verify(self) -> list[str]:
        """Check the whole file; return what is wrong with it."""
        rows = self.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        return [f"file {self.path}: {row[0]}" for row in rows if row[0] != "ok"]

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            self._connection.close()
            if self._gate >= 0:
                os.close(self._gate)
                self._gate = -1

    # -- one file among processes --------------------------------------------------------------

    @contextmanager
    def _gate_held(self, mode: int) -> Iterator[None]:
        """Hold the lock that keeps a file from being set aside while another process writes to it."""
        if self._gate < 0:
            raise CardError(f"{self.path} is closed")
        fcntl.flock(self._gate, mode)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _follow_the_path(self) -> None:
        """Reopen if another process has set the file aside and started a new one."""
        try:
            current = self.path.stat().st_ino
        except FileNotFoundError:
            current = -1
        if current != self._inode:
            self._connection.close()
            self._connection = self._connect()

    def _opened(self) -> sqlite.Connection:
        try:
            try:
                connection = self._connect()
                (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if state == "ok":
                    return connection
                connection.close()
            except sqlite.DatabaseError as error:
                if not sqlite.is_damage(error):
                    raise
                state = str(error)
            return self._replaced(state)
        except (sqlite.DatabaseError, OSError) as error:
            raise self._translated(error) from error

    def _connect(self) -> sqlite.Connection:
        connection = sqlite.open_database(self.path, busy_seconds=_BUSY_SECONDS)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > self._layout.version:
                raise CardError(
                    f"{self.path} has version {version}, this program knows {self._layout.version}; "
                    "install the newer program again"
                )
            if version < self._layout.version:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {self._layout.script} "
                    f"PRAGMA user_version={self._layout.version}; COMMIT;"
                )
            self._preallocate(connection)
        except BaseException:
            connection.close()
            raise
        self._inode = self.path.stat().st_ino
        return connection

    def _preallocate(self, connection: sqlite.Connection) -> None:
        """Grow the file to its cap and its journal to what a transaction can need, once."""
        connection.execute("DROP TABLE IF EXISTS ballast")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        missing = self._max_pages - pages
        if missing >= _JOURNAL_PAGES:
            logger.info("Reserving %d bytes for %s", missing * sqlite.PAGE_BYTES, self.path)
            connection.execute("CREATE TABLE ballast (data BLOB)")
            room = (missing - _JOURNAL_PAGES // 2) * _VALUE_PAGE_BYTES
            while room > 0:
                size = min(room, _LARGEST_BLOB_BYTES)
                connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (size,))
                room -= size
            connection.execute("DELETE FROM ballast")
            # The journal keeps the length of its largest transaction: change many small pages once.
            small = (sqlite.PAGE_BYTES * 3 // 4,)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO ballast VALUES (zeroblob(?))", [small] * _JOURNAL_PAGES)
            connection.execute("COMMIT")
            connection.execute("UPDATE ballast SET data = zeroblob(?)", (sqlite.PAGE_BYTES // 2,))
            connection.execute("DROP TABLE ballast")
        connection.execute(f"PRAGMA max_page_count={self._max_pages}")

    # -- damage --------------------------------------------------------------------------------

    def _replace_unless_replaced(self, damage: str) -> None:
        """Under the exclusive gate: set the file aside unless another process has done so already."""
        self._connection.close()
        already = self.path.exists() and self.path.stat().st_ino != self._inode
        self._connection = self._connect() if already else self._replaced(damage)

    def _replaced(self, damage: str) -> sqlite.Connection:
        aside = self._set_aside()
        connection = self._connect()
        kept = ", ".join(f"{_salvage(aside, connection, table)} of {table}" for table in self._layout.tables)
        logger.error(
            "%s was damaged (%s). It was set aside as %s, not deleted; the rows that could be read were "
            "taken over: %s. Check the card, then `scrapy spool verify`",
            self.path,
            damage,
            aside,
            kept,
        )
        return connection

    def _set_aside(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall_clock()))
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{number}")
        # The journal first: a rollback belongs to the file it was written for, and to no other.
        journal = Path(f"{self.path}-journal")
        if journal.exists():
            journal.rename(f"{aside}-journal")
        self.path.rename(aside)
        sqlite.sync_folder(self.path.parent)
        return aside

    def _translated(self, error: Exception) -> CardError:
        if sqlite.is_full(error):
            return CardFull(f"{self.path} got no space: {error}; free space on its file system")
        return CardError(f"{self.path} failed: {error}; check the card and the file's owner")


def _salvage(damaged: Path, fresh: sqlite.Connection, table: str) -> int:
    """Copy every row of ``table`` that can still be read; return how many."""
    kept = 0
    for row in sqlite.readable_rows(damaged, table, "id"):
        with suppress(sqlite.DatabaseError):
            marks = ", ".join("?" * len(row))
            fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
            kept += 1
    return kept
