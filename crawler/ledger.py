"""The run ledger: what every crawl of this host scraped and what became of it, without the NAS."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from crawler import sqlite
from crawler.drift.comparison import Review
from crawler.durable import DurableDatabase, Layout

KEPT_RUNS_PER_SOURCE = 200
KEPT_TELLING_RUNS_PER_SOURCE = 20
"""Of a site that hardly ever changes, the last runs that saw pages with items may be long ago."""
FAILURES = ("blocked", "broken", "gone", "forbidden", "unusable")
"""The kinds of failure of ``crawler/failures.py`` that have a field in ``Counts``."""

# About 1 kB a run, what it saw of its site included: 200 runs of 60 sources.
_MAX_BYTES = 12 * 1024 * 1024
_LAYOUT = Layout(
    1,
    """
    CREATE TABLE IF NOT EXISTS run (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
        host TEXT NOT NULL, process TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
        status TEXT NOT NULL, error TEXT, counts TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS run_by_source ON run (source, started_at);
    CREATE TABLE IF NOT EXISTS folded (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, runs INTEGER NOT NULL,
        killed INTEGER NOT NULL, counts TEXT NOT NULL);
    """,
    ("run", "folded"),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run, or several, did: in pages, in items, and in requests that failed, by kind."""

    pages: int = 0
    scraped: int = 0
    stored: int = 0
    unchanged: int = 0
    spooled: int = 0
    dead: int = 0
    dropped: int = 0
    lost: int = 0
    blocked: int = 0
    broken: int = 0
    gone: int = 0
    forbidden: int = 0
    unusable: int = 0

    @property
    def accounted(self) -> int:
        """Items whose fate is known."""
        return self.stored + self.unchanged + self.spooled + self.dead + self.dropped

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Counts)))

    def to_json(self) -> str:
        """Return the counts as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Counts":
        """Given what ``to_json`` wrote, also by an older version, return the counts."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the ledger. Times are seconds since the epoch; ``process`` names who runs it.

    ``review`` is what a run that went to its end saw of its site.
    """

    run_id: str
    source: str
    host: str
    process: str
    started_at: float
    ended_at: float | None = None
    status: str = "running"
    error: str | None = None
    counts: Counts = Counts()
    review: Review | None = None

    def books_json(self) -> str:
        """Return the counts, and the review if there is one, as one JSON object."""
        review = {} if self.review is None else {"review": self.review.as_json()}
        return json.dumps(asdict(self.counts) | review, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Book:
    """The sum of a source's ended runs, and how many runs did not end by themselves."""

    source: str
    runs: int
    running: int
    killed: int
    counts: Counts

    def with_run(self, run: Run) -> "Book":
        """Return the book with one more run in it."""
        return Book(
            self.source,
            self.runs + 1,
            self.running + (run.ended_at is None),
            self.killed + (run.status == "killed"),
            self.counts + run.counts,
        )


class RunLedger:
    """Written twice a run. Several processes may hold it open; any thread, one call at a time."""

    def __init__(self, path: Path, wall_clock: Callable[[], float] = time.time) -> None:
        """Given the file, open it, or make it. Raise CardError."""
        self._wall_clock = wall_clock
        self._file = DurableDatabase(path, _LAYOUT, max_bytes=_MAX_BYTES, wall_clock=wall_clock)

    def start(self, run: Run) -> None:
        """Note that a run has started."""
        self._file.change(
            lambda connection: connection.execute(
                "INSERT INTO run (run_id, source, host, process, started_at, status, counts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    run.run_id,
                    run.source,
                    run.host,
                    run.process,
                    run.started_at,
                    run.status,
                    run.counts.to_json(),
                ),
            )
        )

    def end(self, run: Run) -> None:
        """Note how a run ended. Its source's oldest runs are folded into one sum."""

        def update(connection: sqlite.Connection) -> None:
            connection.execute(
                "UPDATE run SET ended_at = ?, status = ?, error = ?, counts = ? WHERE run_id = ?",
                (run.ended_at, run.status, run.error, run.books_json(), run.run_id),
            )
            _fold(connection, run.source)

        self._file.change(update)

    def close_orphans(self, is_running: Callable[[str], bool], tell: Callable[[Run], None]) -> list[Run]:
        """Given how to tell whether a process runs, mark the runs of dead ones killed; return them.

        ``tell`` is called with each before it is marked: whoever is killed in between leaves it to the next.
        """
        killed = [
            replace(run, ended_at=self._wall_clock(), status="killed", error="its process was gone")
            for run in self.runs()
            if run.ended_at is None and not is_running(run.process)
        ]
        for run in killed:
            tell(run)
            self.end(run)
        return killed

    def runs(self) -> list[Run]:
        """Return the runs that are still kept one by one, oldest first."""
        return self._file.read(lambda connection: _runs(connection, "1"))

    def reviews(self, source: str) -> list[Review]:
        """Return what the source's runs saw, as far as they are still kept one by one, oldest first."""
        runs = self._file.read(lambda connection: _runs(connection, "source = ?", source))
        return [run.review for run in runs if run.review is not None]

    def books(self) -> dict[str, Book]:
        """Return the sum of every source's runs since the ledger was made."""
        books = self._file.read(_folded_books)
        for run in self.runs():
            book = books.get(run.source, Book(run.source, 0, 0, 0, Counts()))
            books[run.source] = book.with_run(run)
        return dict(sorted(books.items()))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()


def _runs(connection: sqlite.Connection, where: str, *values: object) -> list[Run]:
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT run_id, source, host, process, started_at, ended_at, status, error, counts"
        f" FROM run WHERE {where} ORDER BY started_at, id",
        values,
    ).fetchall()
    return [Run(*[*row[:-1], Counts.from_json(row[-1]), _review(row[-1])]) for row in rows]


def _review(books_json: str) -> Review | None:
    """Given a run's books, also of a version without reviews, return its review."""
    return Review.of_json(json.loads(books_json).get("review"))


def _folded_books(connection: sqlite.Connection) -> dict[str, Book]:
    rows = connection.execute("SELECT source, runs, killed, counts FROM folded").fetchall()
    return {
        source: Book(source, runs, 0, killed, Counts.from_json(counts))
        for source, runs, killed, counts in rows
    }


def _fold(connection: sqlite.Connection, source: str) -> None:
    """Keep the newest runs of the source, the newest that say what is usual, and the sum of the rest."""
    old = _runs(
        connection,
        "source = ? AND ended_at IS NOT NULL AND id NOT IN"
        " (SELECT id FROM run WHERE source = ? ORDER BY started_at DESC, id DESC LIMIT ?)",
        source,
        source,
        KEPT_RUNS_PER_SOURCE,
    )
    telling = _telling_runs(connection, source) if old else set()
    for run in old:
        if run.run_id in telling:
            continue
        book = _folded_books(connection).get(source, Book(source, 0, 0, 0, Counts())).with_run(run)
        connection.execute(
            "INSERT INTO folded (source, runs, killed, counts) VALUES (?, ?, ?, ?) ON CONFLICT (source)"
            " DO UPDATE SET runs = excluded.runs, killed = excluded.killed, counts = excluded.counts",
            (source, book.runs, book.killed, book.counts.to_json()),
        )
        connection.execute("DELETE FROM run WHERE run_id = ?", (run.run_id,))


def _telling_runs(connection: sqlite.Connection, source: str) -> set[str]:
    seen = [
        run.run_id
        for run in _runs(connection, "source = ?", source)
        if run.review is not None and run.review.profile.item_pages and not run.review.findings
    ]
    return set(seen[-KEPT_TELLING_RUNS_PER_SOURCE:])
