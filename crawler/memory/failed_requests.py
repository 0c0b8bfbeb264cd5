"""What a source failed to fetch, kept for its later runs: one small file that all runs of a host share.

A row is handed out as often as it is due and is removed only when its page is safe, or when asking again
is of no use. So a run may be killed at any moment.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from crawler import sqlite
from crawler.durable import DurableDatabase, Layout
from crawler.exceptions import CardFull

KEPT_PER_SOURCE = 2000
FIRST_WAIT_SECONDS = 3600.0
LONGEST_WAIT_SECONDS = 24 * 3600.0
EXPIRY_SECONDS = 14 * 24 * 3600.0

# About 1 kB a request: 2000 of four sources whose sites are down, or 130 of each of 60.
_MAX_BYTES = 8 * 1024 * 1024
_LAYOUT = Layout(
    1,
    """
    CREATE TABLE IF NOT EXISTS request (
        id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, key TEXT NOT NULL, url TEXT NOT NULL,
        request TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
        first_failed_at REAL NOT NULL, last_failed_at REAL NOT NULL, next_try_at REAL NOT NULL,
        UNIQUE (source, key));
    CREATE INDEX IF NOT EXISTS request_by_next_try ON request (source, next_try_at);
    CREATE TABLE IF NOT EXISTS hold (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, site TEXT NOT NULL, until REAL NOT NULL,
        UNIQUE (source, site));
    """,
    ("request", "hold"),
)


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """One row. Times are seconds since the epoch; ``attempts`` are the runs that asked for it in vain."""

    id: int
    source: str
    key: str
    url: str
    request: str
    kind: str
    reason: str
    attempts: int
    first_failed_at: float
    last_failed_at: float
    next_try_at: float


@dataclass(frozen=True, slots=True)
class Hold:
    """A site that asked to be left alone until a moment, in seconds since the epoch."""

    source: str
    site: str
    until: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed. ``not_before`` is when the site wants to be asked again, if it said so.

    ``request`` is its JSON; None changes a row that is there and makes none. A request that was held back
    was not tried: that is no attempt.
    """

    key: str
    url: str
    request: str | None
    kind: str
    reason: str
    not_before: float | None = None
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class Settled:
    """A request needs no further try."""

    key: str


@dataclass(frozen=True, slots=True)
class Held:
    """A site asked to be left alone until a moment, in seconds since the epoch."""

    site: str
    until: float


Change: TypeAlias = Failed | Settled | Held


@dataclass(slots=True)
class Outcome:
    """What changes did, in requests: newly kept, given up for their age, and pushed out by younger ones."""

    kept: int = 0
    expired: int = 0
    pushed_out: int = 0


@dataclass(frozen=True, slots=True)
class Handover:
    """What a run needs to know of its source: every key there is, what is due now, and the holds."""

    keys: frozenset[str]
    due: list[FailedRequest]
    holds: list[Hold]


def wait_seconds(attempts: int, chance: float) -> float:
    """Given how many runs have failed (1 or more) and a number in [0, 1), return seconds to the next try.

    Doubles from an hour to a day; chance takes off up to half, so that what failed together does not
    come back together.
    """
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 10))
    return longest * (1.0 - chance / 2.0)


def has_expired(first_failed_at: float, now: float) -> bool:
    """Return True if a request that has just failed again is given up.

    Only failing again counts, so that a source which runs once a month still has its second try.
    """
    return now - first_failed_at > EXPIRY_SECONDS


class FailedRequests:
    """Several processes may hold it open; any thread, one call at a time."""

    def __init__(
        self,
        path: Path,
        *,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Given the file, open it, or make it. Raise CardError."""
        self._wall_clock = wall_clock
        self._chance = chance
        self._file = DurableDatabase(path, _LAYOUT, max_bytes=max_bytes, wall_clock=wall_clock)

    def handover(self, source: str) -> Handover:
        """Return what a run of the source starts with. Nothing is taken out. Raise CardError."""
        now = self._wall_clock()

        def read(connection: sqlite.Connection) -> Handover:
            keys = connection.execute("SELECT key FROM request WHERE source = ?", (source,)).fetchall()
            # No wait is longer than a day: what says so was written while the clock was wrong.
            due = _requests(
                connection,
                "source = ? AND (next_try_at <= ? OR next_try_at > ?) ORDER BY next_try_at, id",
                source,
                now,
                now + LONGEST_WAIT_SECONDS,
            )
            holds = _holds(connection, "source = ?", source)
            return Handover(frozenset(key for (key,) in keys), due, _in_force(holds, now))

        return self._file.read(read)

    def apply(self, source: str, changes: Sequence[Change]) -> Outcome:
        """Given what became of requests of a source, in order, note all of it at once. Raise CardError."""

        def write(connection: sqlite.Connection) -> Outcome:
            outcome = Outcome()
            for change in changes:
                match change:
                    case Failed():
                        self._note(connection, source, change, outcome)
                    case Settled(key):
                        connection.execute("DELETE FROM request WHERE source = ? AND key = ?", (source, key))
                    case Held(site, until):
                        _note_hold(connection, source, site, until)
            outcome.pushed_out += _push_out_excess(connection, source)
            return outcome

        return self._file.change(write)

    def requests(self, source: str | None = None, ids: Iterable[int] | None = None) -> list[FailedRequest]:
        """Return the requests of a source, or of all, or those with the ids: the next to be tried first."""
        where, values = _selection(source, ids)
        return self._file.read(
            lambda connection: _requests(connection, f"{where} ORDER BY next_try_at, id", *values)
        )

    def holds(self, source: str | None = None) -> list[Hold]:
        """Return the holds that are still in force."""
        where, values = ("1", ()) if source is None else ("source = ?", (source,))
        holds = self._file.read(lambda connection: _holds(connection, where, *values))
        return _in_force(holds, self._wall_clock())

    def retry(self, source: str | None = None, ids: Iterable[int] | None = None) -> int:
        """Make requests due now, and lift the holds of their sources; return how many requests."""
        where, values = _selection(source, ids)

        def write(connection: sqlite.Connection) -> int:
            connection.execute(
                f"DELETE FROM hold WHERE source IN (SELECT source FROM request WHERE {where})", values
            )
            return connection.execute(f"UPDATE request SET next_try_at = 0 WHERE {where}", values).rowcount

        return self._file.change(write)

    def forget(self, source: str | None = None, ids: Iterable[int] | None = None) -> int:
        """Delete requests for good; return how many."""
        where, values = _selection(source, ids)
        return self._file.change(
            lambda connection: connection.execute(f"DELETE FROM request WHERE {where}", values).rowcount
        )

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def _note(self, connection: sqlite.Connection, source: str, failed: Failed, outcome: Outcome) -> None:
        now = self._wall_clock()
        known = _requests(connection, "source = ? AND key = ?", source, failed.key)
        if not known and failed.request is None:
            return
        attempts = (known[0].attempts if known else 0) + failed.was_tried
        if known and failed.was_tried and has_expired(known[0].first_failed_at, now):
            connection.execute("DELETE FROM request WHERE id = ?", (known[0].id,))
            outcome.expired += 1
            return
        next_try_at = failed.not_before or 0.0
        if failed.was_tried:
            next_try_at = max(next_try_at, now + wait_seconds(attempts, self._chance()))
        if known:
            connection.execute(
                "UPDATE request SET kind = ?, reason = ?, attempts = ?, last_failed_at = ?, next_try_at = ?"
                " WHERE id = ?",
                (failed.kind, failed.reason, attempts, now, next_try_at, known[0].id),
            )
            return
        row = (source, failed.key, failed.url, failed.request, failed.kind, failed.reason, attempts)
        self._make_room(connection, len(failed.request or "") + len(failed.url), outcome)
        connection.execute(
            "INSERT INTO request (source, key, url, request, kind, reason, attempts, first_failed_at,"
            " last_failed_at, next_try_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, now, now, next_try_at),
        )
        outcome.kept += 1

    def _make_room(self, connection: sqlite.Connection, value_bytes: int, outcome: Outcome) -> None:
        """The file has a cap: what failed last longest ago, of whatever source, makes room."""
        while True:
            try:
                self._file.require_room(connection, value_bytes)
            except CardFull:
                gone = connection.execute(
                    "DELETE FROM request WHERE id IN"
                    " (SELECT id FROM request ORDER BY last_failed_at LIMIT 16)"
                ).rowcount
                if not gone:
                    raise
                outcome.pushed_out += gone
            else:
                return


def _selection(source: str | None, ids: Iterable[int] | None) -> tuple[str, tuple[object, ...]]:
    clauses, values = ["1"], list[object]()
    if source is not None:
        clauses.append("source = ?")
        values.append(source)
    if ids is not None:
        numbers = list(ids)
        clauses.append(f"id IN ({', '.join('?' * len(numbers))})")
        values += numbers
    return " AND ".join(clauses), tuple(values)


def _requests(connection: sqlite.Connection, where: str, *values: object) -> list[FailedRequest]:
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT id, source, key, url, request, kind, reason, attempts, first_failed_at, last_failed_at,"
        f" next_try_at FROM request WHERE {where}",
        values,
    ).fetchall()
    return [FailedRequest(*row) for row in rows]


def _holds(connection: sqlite.Connection, where: str, *values: object) -> list[Hold]:
    rows: list[tuple[Any, ...]] = connection.execute(
        f"SELECT source, site, until FROM hold WHERE {where} ORDER BY source, site", values
    ).fetchall()
    return [Hold(*row) for row in rows]


def _in_force(holds: Iterable[Hold], now: float) -> list[Hold]:
    """Return those whose time has not come; one that is more than a day away was written by a wrong clock."""
    return [hold for hold in holds if now < hold.until <= now + LONGEST_WAIT_SECONDS]


def _note_hold(connection: sqlite.Connection, source: str, site: str, until: float) -> None:
    connection.execute(
        "INSERT INTO hold (source, site, until) VALUES (?, ?, ?)"
        " ON CONFLICT (source, site) DO UPDATE SET until = excluded.until",
        (source, site, until),
    )


def _push_out_excess(connection: sqlite.Connection, source: str) -> int:
    """Keep the source's share: what has failed for longest is what is least likely to come back."""
    return connection.execute(
        "DELETE FROM request WHERE source = ? AND id NOT IN (SELECT id FROM request WHERE source = ?"
        " ORDER BY first_failed_at DESC, id DESC LIMIT ?)",
        (source, source, KEPT_PER_SOURCE),
    ).rowcount
