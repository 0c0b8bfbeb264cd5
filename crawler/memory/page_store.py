"""A file of remembered pages: a SqliteDict that belongs to one process and whose every call ends.

sqlitedict does not sync, which suits marks: a power cut may cost them, and lost marks cost a fetch.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from sqlitedict import SqliteDict, SqliteMultithread

from crawler import sqlite
from crawler.exceptions import StoreDamaged, StoreFailed, StoreTaken

# It logs a failure as one record per line of a traceback; it also raises it, and we say it once.
logging.getLogger("sqlitedict").setLevel(logging.CRITICAL)

# Its journal is deleted within milliseconds, so without syncs it never reaches the card. WAL would kill
# the process on a full card (SIGBUS), and MEMORY would lose the file to a kill in the wrong moment.
_JOURNAL_MODE = "DELETE"
_POLL_SECONDS = 0.5


class PageStore:
    """Keys and values are bytes. One thread at a time; every call may take ``call_seconds``."""

    def __init__(self, path: Path, *, call_seconds: float = 10.0) -> None:
        """Given the file, return its store, closed."""
        self.path = path
        self._call_seconds = call_seconds
        self._owner = -1
        self._pages: _BoundedDict | None = None

    def open(self, *, is_reset: bool = False) -> None:
        """Become the file's owner and open it, or make it; ``is_reset`` forgets what it holds.

        Raise StoreTaken if another process owns it, StoreDamaged, or StoreFailed.
        """
        with self._failures_named():
            self._become_owner()
            if is_reset:
                self._delete()
        self._open()

    def get(self, key: bytes, *, ahead: int = 0) -> dict[bytes, bytes]:
        """Return the value of a key, by that key: empty if there is none. Raise StoreFailed.

        With it come those of the keys that were written next, up to ``ahead`` of them.
        """
        query = (
            "SELECT key, value FROM pages WHERE rowid >= (SELECT rowid FROM pages WHERE key = ?)"
            " ORDER BY rowid LIMIT ?"
        )
        with self._failures_named():
            rows = self._connection.select(query, (key, 1 + ahead))
            return {bytes(key): bytes(value) for key, value in rows}

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Given values by key, None for those to forget, write them together. Raise StoreFailed."""
        with self._failures_named():
            for key, value in changes.items():
                if value is None:
                    self._connection.execute("DELETE FROM pages WHERE key = ?", (key,))
            self._open_pages.update({key: value for key, value in changes.items() if value is not None})
            self._open_pages.commit()

    def key_starts(self, pages_at_once: int = 10_000) -> Iterator[bytes]:
        """Yield the first eight bytes of every key, in ascending order, some thousands together."""
        # The inner query reads the index of the keys alone, which has them in this order.
        query = (
            "SELECT max(key), group_concat(hex(substr(key, 1, 8)), '')"
            " FROM (SELECT key FROM pages WHERE key > ? ORDER BY key LIMIT ?)"
        )
        last: bytes | None = b""
        while last is not None:
            with self._failures_named():
                last, starts = self._connection.select_one(query, (last, pages_at_once))
            yield bytes.fromhex(starts or "")

    def oldest(self, pages: int) -> list[tuple[int, bytes]]:
        """Return place and value of the pages that were written longest ago, the oldest first."""
        with self._failures_named():
            return [
                (place, bytes(value))
                for place, value in self._connection.select(
                    "SELECT rowid, value FROM pages ORDER BY rowid LIMIT ?", (pages,)
                )
            ]

    def forget_through(self, place: int) -> None:
        """Given a place from ``oldest``, forget the pages up to and with it."""
        with self._failures_named():
            self._connection.execute("DELETE FROM pages WHERE rowid <= ?", (place,))
            self._open_pages.commit()

    def replace(self) -> None:
        """Begin anew with an empty file. Only for its owner. Raise StoreFailed."""
        self._let_go()
        with self._failures_named():
            self._delete()
        self._open()

    def close(self) -> None:
        """Close the file, whatever its state, and leave it to others; safe to call twice."""
        with suppress(StoreFailed):
            self._let_go()
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1

    @property
    def _open_pages(self) -> "_BoundedDict":
        if self._pages is None:
            raise StoreFailed("it is closed")
        return self._pages

    @property
    def _connection(self) -> Any:
        return self._open_pages.conn

    def _become_owner(self) -> None:
        self._owner = sqlite.open_file(self.path.with_suffix(".lock"))
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreTaken("another process has it") from error

    def _open(self) -> None:
        with self._failures_named():
            if not self.path.exists():
                os.close(sqlite.open_file(self.path))
            self._pages = _BoundedDict(self.path, self._call_seconds)

    def _let_go(self) -> None:
        pages, self._pages = self._pages, None
        if pages is not None and not pages.shut():
            raise StoreFailed("it hangs; check the card")

    def _delete(self) -> None:
        # The journal first: SQLite would roll it back into whatever file has the name it was written for.
        for path in (Path(f"{self.path}-journal"), self.path):
            path.unlink(missing_ok=True)

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite.DatabaseError, OSError) as error:
            # Our statements never change: if one of them makes no sense, the file is not ours any more.
            is_foreign = getattr(error, "sqlite_errorname", None) == "SQLITE_ERROR"
            kind = StoreDamaged if is_foreign or sqlite.is_damage(error) else StoreFailed
            raise kind(str(error)) from error


class _BoundedDict(SqliteDict):  # type: ignore[misc]
    """A SqliteDict of bytes that is never pickled and never waits longer than it was told."""

    def __init__(self, path: Path, call_seconds: float) -> None:
        self._call_seconds = call_seconds
        try:
            super().__init__(str(path), "pages", journal_mode=_JOURNAL_MODE, encode=bytes, decode=bytes)
        except BaseException:
            self.shut()
            raise

    def _new_conn(self) -> "_BoundedConnection":
        return _BoundedConnection(self.filename, self._call_seconds)

    def shut(self) -> bool:
        """Close the connection in any state. Return False if it hangs: then it still has the file."""
        thread: _BoundedConnection | None = getattr(self, "conn", None)
        if thread is None:
            return True
        thread.close(force=True)
        thread.join(self._call_seconds)
        return not thread.is_alive()


class _BoundedConnection(SqliteMultithread):  # type: ignore[misc]
    """sqlitedict's connection and its thread, with an end to every wait.

    As it comes, a commit that fails, or a damaged page, kills the thread while its caller waits for ever.
    """

    def __init__(self, filename: str, call_seconds: float) -> None:
        self._call_seconds = call_seconds
        self._died_of: Exception | None = None
        super().__init__(filename, autocommit=False, journal_mode=_JOURNAL_MODE, outer_stack=False)

    def run(self) -> None:
        """Serve until told to close, or until something fails."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 -- raised again in the thread that waits for an answer
            # Without its traceback, which would keep the connection, and so its lock, alive.
            self._died_of = error.with_traceback(None)

    def select(self, req: str, arg: Any = None) -> Iterator[Any]:
        """Yield the rows that answer a statement. Raise what it raised, or TimeoutError."""
        answers: Queue[Any] = Queue()
        self.execute(req, arg, answers)
        deadline = time.monotonic() + self._call_seconds
        # Rows are tuples; a text says that there are no more.
        while not isinstance(row := self._next(answers, deadline), str):
            yield row

    def _next(self, answers: "Queue[Any]", deadline: float) -> Any:
        while True:
            try:
                row = answers.get(timeout=_POLL_SECONDS)
            except Empty:
                pass
            else:
                self.check_raise_error()
                return row
            if not self.is_alive():
                raise self._died_of or TimeoutError("it was closed meanwhile")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {self._call_seconds:g} seconds")
