"""Opening SQLite files so that what was committed survives a power cut."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from sqlite3 import Connection, DatabaseError

__all__ = [
    "Connection",
    "DatabaseError",
    "is_damage",
    "is_full",
    "open_database",
    "open_file",
    "readable_rows",
    "sync_folder",
]

PAGE_BYTES = 4096
_LONGEST_GAP = 100_000

# PERSIST + FULL: of the journal modes measured under simulated power cuts it loses nothing
# acknowledged, writes each page once (WAL writes it twice), and with a preallocated file it still
# works on a card that another program has filled. The order matters: page_size before the rest.
DURABLE_PRAGMAS: dict[str, str | int] = {
    "page_size": PAGE_BYTES,
    "auto_vacuum": 0,
    "journal_mode": "persist",
    "synchronous": 2,
    "secure_delete": 0,
    "cache_size": -512,
    "temp_store": 2,
}


def open_database(path: Path, *, busy_seconds: float) -> Connection:
    """Given a path and how long to wait for another process's lock, return a durable connection.

    Every pragma is read back. Transactions are the caller's: ``BEGIN IMMEDIATE`` ... ``COMMIT``.
    The connection may be used from any one thread at a time.
    Raise DatabaseError if the file is not a usable database or a pragma did not take, OSError if it
    cannot be made.
    """
    if not path.exists():
        os.close(open_file(path))
    elif not os.access(path, os.R_OK | os.W_OK):
        # Asked, not tried: closing a descriptor of the file would drop every lock this process has on it.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        # The first look at a file that a crash left in the middle of a transaction rolls that back, and
        # deletes the reserved journal, unless the connection is exclusive: its journal mode comes too late.
        connection.execute("PRAGMA locking_mode=exclusive")
        for name, wanted in DURABLE_PRAGMAS.items():
            connection.execute(f"PRAGMA {name}={wanted}")
            (found,) = connection.execute(f"PRAGMA {name}").fetchone()
            if str(found).lower() != str(wanted).lower():
                raise DatabaseError(f"{path}: PRAGMA {name} is {found!r}, needed {wanted!r}")
        connection.execute("PRAGMA locking_mode=normal")
        # The lock itself goes only with the next look.
        connection.execute("PRAGMA user_version").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path) -> int:
    """Given a path, open the file for reading and writing, making it and its folder; return its number.

    What root makes belongs to the folder's owner: a look by root must not lock the crawler out.
    """
    _make_folder(path.parent)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    if is_new:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        sync_folder(path.parent)
    return descriptor


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a file's creation or renaming in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: Exception) -> bool:
    """Return True if there is no space: below the page cap, or on the file system."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _primary_code(error) == sqlite3.SQLITE_FULL


def is_damage(error: Exception) -> bool:
    """Return True if the file's content is wrong, as opposed to the card, a lock or a full disk."""
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def readable_rows(path: Path, table: str, key: str) -> Iterator[tuple[object, ...]]:
    """Given a damaged file, a table and its integer key, return every row that can still be read.

    The keys are collected from both ends, and the gap between them is tried one by one, so that a
    damaged page in the middle costs only the rows on it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = _text
        # Without it SQLite reads nothing at all of a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema=ON")
        from_start = _readable_keys(connection, table, f"{key} ASC", key)
        from_end = _readable_keys(connection, table, f"{key} DESC", key)
        keys = set(from_start) | set(from_end)
        if from_start and from_end:
            # Bounded, because a damaged page may hold any number.
            keys.update(range(max(from_start) + 1, min(from_end))[:_LONGEST_GAP])
        for value in sorted(keys):
            with suppress(DatabaseError):
                yield from connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (value,))


def _text(raw: bytes) -> str:
    """Return a text also where the card has damaged it: the checksum of its row tells."""
    return raw.decode(errors="replace")


def _readable_keys(connection: Connection, table: str, order: str, key: str) -> list[int]:
    keys: list[int] = []
    with suppress(DatabaseError):
        for (value,) in connection.execute(f"SELECT {key} FROM {table} ORDER BY {order}"):
            keys.append(value)
    return keys


def _primary_code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
