"""The run ledger: what every crawl of this host scraped and what became of it, without the NAS."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from crawler import sqlite

KEPT_RUNS_PER_SOURCE = 500

_TABLES = """
CREATE TABLE IF NOT EXISTS run (
    run_id TEXT PRIMARY KEY, source TEXT NOT NULL, host TEXT NOT NULL, process TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL, status TEXT NOT NULL, error TEXT,
    counts TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_by_source ON run (source, started_at);
CREATE TABLE IF NOT EXISTS folded (
    source TEXT PRIMARY KEY, runs INTEGER NOT NULL, killed INTEGER NOT NULL, counts TEXT NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run, or several, did: in pages and items."""

    pages: int = 0
    scraped: int = 0
    stored: int = 0
    unchanged: int = 0
    spooled: int = 0
    dead: int = 0
    dropped: int = 0
    lost: int = 0

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
    """One row of the ledger. Times are seconds since the epoch, UTC."""

    run_id: str
    source: str
    host: str
    process: str
    started_at: float
    ended_at: float | None
    status: str
    error: str | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Book:
    """The sum of a source's ended runs, and how many runs did not end by themselves."""

    source: str
    runs: int
    running: int
    killed: int
    counts: Counts


class RunLedger:
    """Written twice a run. Several processes may hold it open; any thread, one call at a time."""

    def __init__(self, path: Path, wall_clock: Callable[[], float] = time.time) -> None:
        """Given the file, open it, making it if it is not there. Raise DatabaseError if it is damaged."""
        self._wall_clock = wall_clock
        self._connection = sqlite.open_database(path, busy_seconds=10.0)
        self._connection.executescript(_TABLES)

    def start(self, run_id: str, source: str, host: str, process: str) -> Run:
        """Note that a run has started in ``process`` (see ``crawler.host.processes``)."""
        run = Run(run_id, source, host, process, self._wall_clock(), None, "running", None, Counts())
        self._connection.execute(
            "INSERT INTO run (run_id, source, host, process, started_at, status) VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, source, host, process, run.started_at, run.status),
        )
        return run

    def end(self, run_id: str, status: str, counts: Counts, error: str | None) -> None:
        """Note how a run ended. The oldest runs of its source are folded into one sum."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.execute(
                "UPDATE run SET ended_at = ?, status = ?, error = ?, counts = ? WHERE run_id = ?",
                (self._wall_clock(), status, error, counts.to_json(), run_id),
            )
            self._fold(run_id)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close_orphans(self, is_running: Callable[[str], bool]) -> list[Run]:
        """Given how to tell whether a process runs, mark the runs of dead ones killed; return them."""
        orphans = [run for run in self.runs("ended_at IS NULL") if not is_running(run.process)]
        for run in orphans:
            self.end(run.run_id, "killed", run.counts, "its process was gone")
        return self.runs(f"run_id IN ({', '.join('?' * len(orphans))})", *(run.run_id for run in orphans))

    def runs(self, where: str = "1", *values: object) -> list[Run]:
        """Return the runs that are still kept one by one, oldest first."""
        rows: list[tuple[Any, ...]] = self._connection.execute(
            "SELECT run_id, source, host, process, started_at, ended_at, status, error, counts"
            f" FROM run WHERE {where} ORDER BY started_at",
            values,
        ).fetchall()
        return [_run(*row) for row in rows]

    def books(self) -> dict[str, Book]:
        """Return the sum of every source's runs since the ledger was made."""
        books = {
            source: Book(source, runs, 0, killed, Counts.from_json(counts))
            for source, runs, killed, counts in self._connection.execute(
                "SELECT source, runs, killed, counts FROM folded"
            )
        }
        for run in self.runs():
            book = books.get(run.source, Book(run.source, 0, 0, 0, Counts()))
            books[run.source] = Book(
                run.source,
                book.runs + 1,
                book.running + (run.ended_at is None),
                book.killed + (run.status == "killed"),
                book.counts + run.counts,
            )
        return dict(sorted(books.items()))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    def _fold(self, run_id: str) -> None:
        (source,) = self._connection.execute("SELECT source FROM run WHERE run_id = ?", (run_id,)).fetchone()
        for old in self.runs(
            "source = ? AND ended_at IS NOT NULL AND run_id NOT IN"
            " (SELECT run_id FROM run WHERE source = ? ORDER BY started_at DESC LIMIT ?)",
            source,
            source,
            KEPT_RUNS_PER_SOURCE,
        ):
            row = self._connection.execute(
                "SELECT runs, killed, counts FROM folded WHERE source = ?", (source,)
            ).fetchone()
            runs, killed, counts = row or (0, 0, "{}")
            self._connection.execute(
                "INSERT OR REPLACE INTO folded VALUES (?, ?, ?, ?)",
                (
                    source,
                    runs + 1,
                    killed + (old.status == "killed"),
                    (Counts.from_json(counts) + old.counts).to_json(),
                ),
            )
            self._connection.execute("DELETE FROM run WHERE run_id = ?", (old.run_id,))


def _run(*row: Any) -> Run:
    *values, counts = row
    return Run(*[*values, Counts.from_json(counts)])
