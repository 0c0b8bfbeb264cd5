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
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from crawler import sqlite
from crawler.exceptions import CardError, CardFull

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite.Connection], T]
# The inode of a file, and when it was last written to.
_State = tuple[int, int]

# A header and 128 pages, each with its number and checksum: more than any transaction here changes.
_JOURNAL_BYTES = 512 + 128 * (sqlite.PAGE_BYTES + 8)
_LARGEST_BLOB_BYTES = 256 * 1024 * 1024
# A page of a large value holds four bytes less: the number of the next one.
_VALUE_PAGE_BYTES = sqlite.PAGE_BYTES - 4
# No second one fits beside it.
_ONE_PAGE_VALUE_BYTES = sqlite.PAGE_BYTES * 3 // 4
# What the table needs to reach its values, with something to spare.
_BALLAST_TREE_PAGES = 8
_MOST_PAGES = 2**32 - 2
_BUSY_SECONDS = 10.0
# Writes that are less apart may leave the same time on a file. More than any kernel's tick.
_CLOCK_TICK_SECONDS = 0.1


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
        self._is_connected = False
        self._glances: dict[object, object] = {}
        self._glanced_at: _State | None = None
        self._watch = _Watch(path)
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

    def glance(self, about: object, work: Work[T]) -> T:
        """Run ``work`` for what is to be known ``about`` the file, once for each time that was written to.

        A look is not free: SQLite run by root sets the journal's owner anew each time, and so writes an
        inode. Raise CardError.
        """
        with self._lock:
            state = self._watch.state()
            if state is None or state != self._glanced_at:
                self._glances.clear()
                self._glanced_at = state
            if about not in self._glances:
                self._glances[about] = self.read(work)
            return cast(T, self._glances[about])

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
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return (_pages(connection) - free) * sqlite.PAGE_BYTES, self._max_pages * sqlite.PAGE_BYTES

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
        if current != self._inode or not self._is_connected:
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
        self._is_connected = False
        # Also if it cannot be opened: this is the file, then, that is to be replaced.
        self._inode = self.path.stat().st_ino if self.path.exists() else -1
        connection = self._open(self.path)
        self._inode = self.path.stat().st_ino
        self._is_connected = True
        return connection

    def _open(self, path: Path) -> sqlite.Connection:
        connection = sqlite.open_database(path, busy_seconds=_BUSY_SECONDS)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > self._layout.version:
                raise CardError(
                    f"{path} has version {version}, this program knows {self._layout.version}; "
                    "install the newer program again"
                )
            self._reserve(connection, path, is_new=version == 0)
            if version < self._layout.version:
                # SQLite syncs the folder too, and does not tell when that fails.
                sqlite.sync_folder(path.parent)
                connection.executescript(
                    f"BEGIN IMMEDIATE; {self._layout.script} "
                    f"PRAGMA user_version={self._layout.version}; COMMIT;"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    # -- room on the card ----------------------------------------------------------------------

    def _reserve(self, connection: sqlite.Connection, path: Path, *, is_new: bool) -> None:
        """Give the file all the room it may ever need, and its journal what a transaction may.

        Without that room a new file is not made. An older one that lacks some is used all the same:
        what waits in it must get out.
        """
        try:
            self._grow(connection, path)
            _grow_journal(connection, path)
        except (sqlite.DatabaseError, OSError) as error:
            if is_new or not sqlite.is_full(error):
                raise
            logger.warning(
                "%s has not all the room it may need (%s): free space on its file system", path, error
            )
        connection.execute(f"PRAGMA max_page_count={self._max_pages}")

    def _grow(self, connection: sqlite.Connection, path: Path) -> None:
        connection.execute("DROP TABLE IF EXISTS ballast")
        missing = self._max_pages - _pages(connection)
        if missing <= 0:
            return
        logger.info("Reserving %d bytes for %s", missing * sqlite.PAGE_BYTES, path)
        connection.execute("CREATE TABLE ballast (data BLOB)")
        while (missing := self._max_pages - _pages(connection)) > 0:
            # One large value for the most of it, then a page at a time. The file grows only once its free
            # pages are used up: whoever was killed at this has left it with many of them.
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            size = min((missing + free - _BALLAST_TREE_PAGES) * _VALUE_PAGE_BYTES, _LARGEST_BLOB_BYTES)
            connection.execute(
                "INSERT INTO ballast VALUES (zeroblob(?))", (max(size, _ONE_PAGE_VALUE_BYTES),)
            )
        connection.execute("DROP TABLE ballast")

    # -- damage --------------------------------------------------------------------------------

    def _replace_unless_replaced(self, damage: str) -> None:
        """Under the exclusive gate: set the file aside unless another process has done so already."""
        self._connection.close()
        self._is_connected = False
        already = self.path.exists() and self.path.stat().st_ino != self._inode
        self._connection = self._connect() if already else self._replaced(damage)

    def _replaced(self, damage: str) -> sqlite.Connection:
        """Put a new file in the place of a damaged one, with every row that could be read.

        The damaged one stays in its place until the new one is complete and on the card, so that a
        crash, or a card without room for both, costs nothing: the next one to open it begins again.
        """
        mended = self.path.with_name(f"{self.path.name}.mended")
        for leftover in (mended, _journal(mended)):
            leftover.unlink(missing_ok=True)
        with closing(self._open(mended)) as connection:
            kept = _salvage(self.path, connection, self._layout.tables)
        aside = self._set_aside()
        mended.rename(self.path)
        _journal(mended).rename(_journal(self.path))
        sqlite.sync_folder(self.path.parent)
        logger.error(
            "%s was damaged (%s). It was set aside as %s, not deleted; the rows that could be read were "
            "taken over: %s. Check the card, then `scrapy spool verify`",
            self.path,
            damage,
            aside,
            ", ".join(f"{rows} of {table}" for table, rows in kept.items()),
        )
        return self._connect()

    def _set_aside(self) -> Path:
        """Give the damaged file a second name, for good; return it."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall_clock()))
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{number}")
        aside.hardlink_to(self.path)
        # A rollback belongs to the file it was written for: it must be gone before another takes its place.
        if _journal(self.path).exists():
            _journal(self.path).rename(_journal(aside))
        sqlite.sync_folder(self.path.parent)
        return aside

    def _translated(self, error: Exception) -> CardError:
        if sqlite.is_full(error):
            return CardFull(f"{self.path} got no space: {error}; free space on its file system")
        return CardError(f"{self.path} failed: {error}; check the card and the file's owner")


class _Watch:
    """Tells whether a file was written to in between, without reading it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: _State | None = None
        self._seen_at = 0.0

    def state(self) -> _State | None:
        """Return what a further write will change; None while it might not, in the same clock tick."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        now, state = time.monotonic(), (found.st_ino, found.st_mtime_ns)
        if state != self._seen:
            self._seen, self._seen_at = state, now
        return state if now - self._seen_at > _CLOCK_TICK_SECONDS else None


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _pages(connection: sqlite.Connection) -> int:
    return int(connection.execute("PRAGMA page_count").fetchone()[0])


def _grow_journal(connection: sqlite.Connection, path: Path) -> None:
    """Reserve the journal: SQLite never shortens it, and takes one that begins with zeros as empty."""
    journal = _journal(path)
    if journal.exists() and journal.stat().st_size >= _JOURNAL_BYTES:
        return
    # While this transaction lasts nobody else writes to the journal.
    connection.execute("BEGIN IMMEDIATE")
    try:
        descriptor = sqlite.open_file(journal)
        try:
            while (size := os.fstat(descriptor).st_size) < _JOURNAL_BYTES:
                os.pwrite(descriptor, bytes(_JOURNAL_BYTES - size), size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        connection.execute("ROLLBACK")


def _salvage(damaged: Path, fresh: sqlite.Connection, tables: tuple[str, ...]) -> dict[str, int]:
    """Copy every row that can still be read, all in one transaction; return how many of each table."""
    # What fitted once has to fit again, whatever the cap has become.
    fresh.execute(f"PRAGMA max_page_count={_MOST_PAGES}")
    fresh.execute("BEGIN IMMEDIATE")
    kept = {table: _copied(damaged, fresh, table) for table in tables}
    fresh.execute("COMMIT")
    return kept


def _copied(damaged: Path, fresh: sqlite.Connection, table: str) -> int:
    kept = 0
    for row in sqlite.readable_rows(damaged, table, "id"):
        marks = ", ".join("?" * len(row))
        try:
            kept += fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
        except sqlite.DatabaseError as error:
            # A row that fits no table is damage; one that the card does not take must not be left behind.
            if not fresh.in_transaction or sqlite.is_full(error):
                raise
    return kept
