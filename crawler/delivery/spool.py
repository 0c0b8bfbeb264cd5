"""The queue on the card: what PostgreSQL has not taken yet, and what it never will.

One file per host, written by every process and drained by one at a time. A batch is one compressed
blob of COPY lines with its checksum: half the payload reaches the card.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crawler import sqlite
from crawler.durable import DurableDatabase, Layout
from crawler.exceptions import CardError
from crawler.records import DeadLetter, Stream, split_lines

_SCRIPT = """
CREATE TABLE IF NOT EXISTS batch (
    id INTEGER PRIMARY KEY AUTOINCREMENT, table_name TEXT NOT NULL, source TEXT NOT NULL,
    columns TEXT NOT NULL, items INTEGER NOT NULL, spooled_at REAL NOT NULL,
    checksum INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT, table_name TEXT NOT NULL, source TEXT NOT NULL,
    columns TEXT NOT NULL, items INTEGER NOT NULL, died_at REAL NOT NULL, item_key TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, replayable INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, source TEXT NOT NULL,
    spooled INTEGER NOT NULL DEFAULT 0, stored INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
    buried INTEGER NOT NULL DEFAULT 0, replayed INTEGER NOT NULL DEFAULT 0,
    forgotten INTEGER NOT NULL DEFAULT 0,
    UNIQUE (table_name, source));
"""
LAYOUT = Layout(1, _SCRIPT, ("account", "batch", "dead_letter"))
_REASON_CHARACTERS = 500
# Of pages of prose level 1 writes a quarter more to the card, and level 9 hardly less.
_COMPRESSION = 6


@dataclass(frozen=True, slots=True)
class Batch:
    """A spooled batch. ``lines`` is None when its bytes no longer match their checksum."""

    id: int
    stream: Stream
    columns: str
    items: int
    spooled_at: float
    compressed: bytes
    lines: list[bytes] | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one spooled batch: item counts, and the letters of those that died."""

    batch: Batch
    stored: int = 0
    unchanged: int = 0
    dead: Sequence[DeadLetter] = ()


class Account(NamedTuple):
    """The books of one stream, in items, since the spool was made.

    ``spooled`` came in from crawls, ``replayed`` from the dead letters; drained items were ``stored``,
    ``unchanged`` or ``refused`` (now dead letters); ``buried`` are dead letters straight from crawls;
    ``forgotten`` ones were deleted by the operator. ``waiting`` and ``dead`` are counted, not booked.
    """

    stream: Stream
    spooled: int
    stored: int
    unchanged: int
    refused: int
    buried: int
    replayed: int
    forgotten: int
    waiting: int
    dead: int

    @property
    def adds_up(self) -> bool:
        """True if what came in is what went out and what is here."""
        came = self.spooled + self.replayed
        went = self.stored + self.unchanged + self.refused
        died = self.buried + self.refused
        return came == went + self.waiting and died == self.dead + self.replayed + self.forgotten


class Status(NamedTuple):
    """How the spool stands: counts, bytes in use, its cap, and the age of its oldest batch."""

    batches: int
    items: int
    dead: int
    used_bytes: int
    max_bytes: int
    oldest_age_seconds: float | None

    @property
    def fill(self) -> float:
        """The share of the cap in use, 0 to 1."""
        return self.used_bytes / self.max_bytes


class Spool:
    """The spool of this host. May be used from any thread, one call at a time."""

    def __init__(self, path: Path, *, max_bytes: int, wall_clock: Callable[[], float] = time.time) -> None:
        """Given the file and its cap, open it, or make it. Raise CardError."""
        self.path = path
        self._wall_clock = wall_clock
        self._file = DurableDatabase(path, LAYOUT, max_bytes=max_bytes, wall_clock=wall_clock)

    # -- what crawls do ------------------------------------------------------------------------

    def append(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> int:
        """Given the lines of one batch, make them durable and return the batch's id.

        Raise CardFull if they do not fit under the cap, CardError if the card fails; then the
        caller still owns the batch.
        """
        payload = zlib.compress(b"".join(lines), _COMPRESSION)

        def insert(connection: sqlite.Connection) -> int:
            self._file.require_room(connection, len(payload))
            _book(connection, stream, spooled=len(lines))
            return self._insert_batch(connection, stream, columns, len(lines), payload)

        return self._file.change(insert)

    def bury(self, columns: str, letters: Sequence[DeadLetter]) -> None:
        """Given items that can never be stored, make them durable as dead letters."""

        def insert(connection: sqlite.Connection) -> None:
            for letter in letters:
                self._insert_dead(connection, columns, letter)
                _book(connection, letter.stream, buried=1)

        self._file.change(insert)

    def has_waiting(self, stream: Stream) -> bool:
        """Return True if a batch of this stream waits: a newer one must queue behind it."""
        query = "SELECT EXISTS (SELECT 1 FROM batch WHERE table_name = ? AND source = ?)"
        return bool(self._file.glance(stream, lambda c: c.execute(query, stream).fetchone()[0]))

    # -- what the drainer does -----------------------------------------------------------------

    def oldest(self, *, after_id: int = 0) -> Batch | None:
        """Return the oldest batch with an id above ``after_id``, or None."""
        newest = "SELECT coalesce(max(id), 0) FROM batch"
        if self._file.glance("newest", lambda c: c.execute(newest).fetchone()[0]) <= after_id:
            return None
        return next(iter(self._batches("WHERE id > ? ORDER BY id LIMIT 1", (after_id,))), None)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Given batches PostgreSQL has dealt with, forget them, book them and keep their dead letters."""

        def settle(connection: sqlite.Connection) -> None:
            for done in settlements:
                # A new file made in place of a damaged one may give the number to another batch.
                connection.execute(
                    "DELETE FROM batch WHERE id = ? AND (spooled_at = ? OR typeof(spooled_at) <> 'real')",
                    (done.batch.id, done.batch.spooled_at),
                )
                refused = done.batch.items - done.stored - done.unchanged
                _book(
                    connection,
                    done.batch.stream,
                    stored=done.stored,
                    unchanged=done.unchanged,
                    refused=refused,
                )
                for letter in done.dead:
                    self._insert_dead(connection, done.batch.columns, letter)
                if done.batch.lines is None:
                    self._insert_damaged(connection, done.batch)

        if settlements:
            self._file.change(settle)

    # -- what the operator asks ----------------------------------------------------------------

    def status(self) -> Status:
        """Return how the spool stands now."""

        def read(connection: sqlite.Connection) -> Status:
            # The oldest is the first in line: the clock may have jumped back since.
            batches, items, oldest = connection.execute(
                "SELECT count(*), coalesce(sum(items), 0),"
                " (SELECT spooled_at FROM batch ORDER BY id LIMIT 1) FROM batch"
            ).fetchone()
            (dead,) = connection.execute("SELECT coalesce(sum(items), 0) FROM dead_letter").fetchone()
            age = None if oldest is None else max(0.0, self._wall_clock() - _seconds(oldest))
            used, cap = self._file.used_and_cap_bytes(connection)
            return Status(batches, items, dead, used, cap, age)

        return self._file.read(read)

    def fill(self) -> float:
        """Return the share of the cap in use, 0 to 1. Cheap: reads one page, if the file has changed."""
        used, cap = self._file.glance("fill", self._file.used_and_cap_bytes)
        return used / cap

    def accounts(self) -> list[Account]:
        """Return the books of every stream that was ever spooled or had a dead letter."""
        query = """
            SELECT table_name, source, spooled, stored, unchanged, refused, buried, replayed, forgotten,
                   (SELECT coalesce(sum(items), 0) FROM batch AS b
                     WHERE (b.table_name, b.source) = (a.table_name, a.source)),
                   (SELECT coalesce(sum(items), 0) FROM dead_letter AS d
                     WHERE (d.table_name, d.source) = (a.table_name, a.source))
              FROM account AS a ORDER BY table_name, source"""
        rows = self._file.read(lambda c: c.execute(query).fetchall())
        return [Account(_stream(row[0], row[1]), *map(_number, row[2:])) for row in rows]

    def batches(self) -> Iterator[Batch]:
        """Return every batch, oldest first, one in memory at a time."""
        after_id = 0
        while (batch := self.oldest(after_id=after_id)) is not None:
            yield batch
            after_id = batch.id

    def dead_letters(self) -> Iterator[tuple[int, float, str, DeadLetter]]:
        """Return every dead letter as (id, died_at in seconds since the epoch, columns, letter)."""
        query = """
            SELECT id, died_at, columns, table_name, source, item_key, code, reason, payload,
                   replayable FROM dead_letter WHERE id > ? ORDER BY id LIMIT 1"""
        after_id = 0
        while (row := self._file.read(partial(_one, query, after_id))) is not None:
            after_id, died_at, columns, table, source, key, code, reason, payload, replayable = row
            letter = DeadLetter(
                _stream(table, source),
                str(key),
                str(code),
                str(reason),
                _inflated(_bytes(payload)),
                bool(replayable),
            )
            yield after_id, _seconds(died_at), str(columns), letter

    def replay(self, ids: Iterable[int] | None = None) -> int:
        """Given ids of dead letters (None: all), queue those with a row form again; return how many."""

        def queue_again(connection: sqlite.Connection, row: tuple[Any, ...]) -> None:
            _id, table, source, columns, items, payload = row
            stream = _stream(table, source)
            self._insert_batch(connection, stream, str(columns), _number(items), _bytes(payload))

        return self._take_dead_letters(ids, "replayed", "WHERE replayable", queue_again)

    def forget(self, ids: Iterable[int] | None = None) -> int:
        """Given ids of dead letters (None: all), delete them for good; return how many items."""
        return self._take_dead_letters(ids, "forgotten", "", lambda _connection, _row: None)

    def _take_dead_letters(
        self,
        ids: Iterable[int] | None,
        booked_as: str,
        where: str,
        act: Callable[[sqlite.Connection, tuple[Any, ...]], None],
    ) -> int:
        wanted = None if ids is None else set(ids)

        def take(connection: sqlite.Connection) -> int:
            taken = 0
            listed = connection.execute(f"SELECT id FROM dead_letter {where} ORDER BY id").fetchall()
            for (letter_id,) in listed:
                if wanted is not None and letter_id not in wanted:
                    continue
                row = connection.execute(
                    "SELECT id, table_name, source, columns, items, payload FROM dead_letter WHERE id = ?",
                    (letter_id,),
                ).fetchone()
                connection.execute("DELETE FROM dead_letter WHERE id = ?", (letter_id,))
                act(connection, row)
                _book(connection, _stream(row[1], row[2]), **{booked_as: _number(row[4])})
                taken += _number(row[4])
            return taken

        return self._file.change(take)

    def verify(self) -> list[str]:
        """Check the file, every checksum and the books; return the findings, none if all is well."""
        findings = self._file.verify()
        findings += [
            f"batch {batch.id} ({batch.stream.source}, {batch.items} items): checksum does not match"
            for batch in self.batches()
            if batch.lines is None
        ]
        findings += [
            f"account of {account.stream.source} in {account.stream.table} does not add up: {account}"
            for account in self.accounts()
            if not account.adds_up
        ]
        return findings

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    # -- rows ----------------------------------------------------------------------------------

    def _insert_batch(
        self,
        connection: sqlite.Connection,
        stream: Stream,
        columns: str,
        items: int,
        payload: bytes,
    ) -> int:
        cursor = connection.execute(
            "INSERT INTO batch (table_name, source, columns, items, spooled_at, checksum, payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *stream,
                columns,
                items,
                self._wall_clock(),
                _checksum(stream, columns, items, payload),
                payload,
            ),
        )
        return cursor.lastrowid or 0

    def _insert_dead(
        self,
        connection: sqlite.Connection,
        columns: str,
        letter: DeadLetter,
        items: int = 1,
        payload: bytes | None = None,
    ) -> None:
        payload = zlib.compress(letter.payload, _COMPRESSION) if payload is None else payload
        self._file.require_room(connection, len(payload))
        connection.execute(
            "INSERT INTO dead_letter (table_name, source, columns, items, died_at, item_key, code,"
            " reason, replayable, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *letter.stream,
                columns,
                items,
                self._wall_clock(),
                letter.key,
                letter.code,
                letter.reason[:_REASON_CHARACTERS],
                letter.replayable,
                payload,
            ),
        )

    def _insert_damaged(self, connection: sqlite.Connection, batch: Batch) -> None:
        reason = f"batch {batch.id} no longer matches its checksum: the card damaged it"
        letter = DeadLetter(batch.stream, "", "checksum", reason, b"", replayable=False)
        self._insert_dead(connection, batch.columns, letter, batch.items, batch.compressed)

    def _batches(self, where: str, values: tuple[object, ...]) -> list[Batch]:
        query = (
            f"SELECT id, table_name, source, columns, items, spooled_at, checksum, payload FROM batch {where}"
        )
        rows = self._file.read(lambda c: c.execute(query, values).fetchall())
        return [_batch(*row) for row in rows]


class DrainLock:
    """The right to drain this host's spool. Dies with its holder."""

    def __init__(self, spool_path: Path) -> None:
        """Given the spool's path, make the file to be locked: draining writes none. Raise CardError."""
        self._path = spool_path.with_suffix(".drain")
        self._descriptor = -1
        os.close(self._opened())

    def acquire(self) -> bool:
        """Return True if this process now holds the right, or held it already. Raise CardError."""
        if self._descriptor >= 0:
            return True
        descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def _opened(self) -> int:
        try:
            return sqlite.open_file(self._path)
        except OSError as error:
            raise CardError(f"{self._path} cannot be opened: {error}") from error

    def release(self) -> None:
        """Give the right back; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _book(connection: sqlite.Connection, stream: Stream, **items: int) -> None:
    names = ", ".join(items)
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in items)
    connection.execute(
        f"INSERT INTO account (table_name, source, {names})"
        f" VALUES (?, ?{', ?' * len(items)}) ON CONFLICT (table_name, source) DO UPDATE SET {sums}",
        (*stream, *items.values()),
    )


def _one(query: str, value: int, connection: sqlite.Connection) -> Any:
    return connection.execute(query, (value,)).fetchone()


def _checksum(stream: Stream, columns: str, items: int, compressed: bytes) -> int:
    """Return the CRC-32 of all that says what a batch is and where it goes."""
    return zlib.crc32(compressed, zlib.crc32("\n".join((*stream, columns, str(items))).encode()))


def _batch(*row: Any) -> Batch:
    batch_id, table, source, columns, items, spooled_at, checksum, payload = row
    stream, columns, items, payload = _stream(table, source), str(columns), _number(items), _bytes(payload)
    intact = _checksum(stream, columns, items, payload) == checksum
    lines = split_lines(zlib.decompress(payload)) if intact else None
    return Batch(batch_id, stream, columns, items, _seconds(spooled_at), payload, lines)


# A damaged row may hold a value of any type in any column.


def _stream(table: object, source: object) -> Stream:
    return Stream(str(table), str(source))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _seconds(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _inflated(compressed: bytes) -> bytes:
    try:
        return zlib.decompress(compressed)
    except zlib.error:
        return compressed
