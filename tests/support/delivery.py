"""What tests of delivery share: lines to deliver, a database to look into, sinks and spools."""

import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psycopg2

from crawler.delivery.migration import known_migrations, migrate
from crawler.delivery.postgres import Outcome, PostgresSink
from crawler.delivery.spool import Spool
from crawler.delivery.tables import CRAWLER_JOBS, SCRAPED_DATA
from crawler.exceptions import SinkError
from crawler.records import Record, Stream, copy_line, hash128
from crawler.tickets import Ticket

SHOP = Stream(SCRAPED_DATA.name, "shop")
COLUMNS = SCRAPED_DATA.column_names
JOB_COLUMNS = CRAWLER_JOBS.column_names
START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024**2


def at(minute: float) -> datetime:
    """Return the moment ``minute`` minutes after the start of a test's history."""
    return START + timedelta(minutes=minute)


def observation(
    key: str,
    content: object,
    minute: float,
    *,
    source: str = "shop",
    keep_every: bool = False,
    data: bytes | None = None,
    host: str = "pi",
) -> bytes:
    """Return the COPY line of a thing seen at a minute of the history. ``data`` replaces its JSON."""
    json = orjson.dumps({"key": key, "value": content}, option=orjson.OPT_SORT_KEYS)
    return copy_line(
        (
            source,
            key,
            f"https://{source}.example/{key}",
            json if data is None else data,
            hash128(source.encode(), key.encode()).hex(),
            hash128(json if data is None else data).hex(),
            at(minute).isoformat(),
            "run-1",
            host,
            "t" if keep_every else "f",
        )
    )


def observations(number: int, *, first: int = 0, source: str = "shop", padding: int = 0) -> list[bytes]:
    """Return lines of ``number`` different things, each with ``padding`` letters of ballast."""
    return [
        observation(f"key-{n}", "x" * padding + str(n), 0, source=source)
        for n in range(first, first + number)
    ]


def record(line: bytes, stream: Stream = SHOP, ticket: Ticket | None = None) -> Record:
    """Return the line as a crawl hands it over."""
    return Record(stream, line.split(b"\t")[1].decode(), line, ticket)


def records(
    number: int, *, first: int = 0, source: str = "shop", ticket: Ticket | None = None
) -> list[Record]:
    """Return ``number`` different records of one source."""
    stream = Stream(SCRAPED_DATA.name, source)
    return [record(line, stream, ticket) for line in observations(number, first=first, source=source)]


def job(run_id: str, *, ended: bool, source: str = "shop") -> Record:
    """Return the row of a run that has started, or that has ended."""
    line = copy_line(
        (
            run_id,
            source,
            "pi",
            "finished" if ended else "running",
            at(0).isoformat(),
            at(9).isoformat() if ended else None,
            7 if ended else None,
            None,
            b'{"stored":7}' if ended else None,
        )
    )
    return Record(Stream(CRAWLER_JOBS.name, source), run_id, line)


def rows(url: str, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Return what a query answers, over a connection of its own."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query, tuple(parameters) or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def stored(url: str, source: str = "shop") -> list[tuple[str, Any, float]]:
    """Return the history of a source as (key, value, minute), by key and time."""
    query = """
        SELECT item_key, data->'value', extract(epoch FROM scraped_at - %s) / 60 FROM scraped_data
         WHERE source = %s ORDER BY item_key, scraped_at, content_hash"""
    return [(key, value, float(minute)) for key, value, minute in rows(url, query, (START, source))]


def keys_of(url: str, source: str = "shop") -> list[str]:
    """Return the keys of a source, one for each row."""
    return [key for (key,) in rows(url, "SELECT item_key FROM scraped_data WHERE source = %s", (source,))]


def make_schema(url: str) -> None:
    """Bring a fresh database to the schema of this version."""
    sink = PostgresSink(url)
    try:
        migrate(sink, known_migrations())
    finally:
        sink.close()


def small_spool(folder: Path, *, max_bytes: int = 2 * MIB, **options: Any) -> Spool:
    """Return a spool with a small cap: preallocating it takes little time."""
    return Spool(folder / "spool.sqlite", max_bytes=max_bytes, **options)


class Write(NamedTuple):
    """One call of a ``ScriptedSink``."""

    stream: Stream
    columns: str
    lines: list[bytes]


@dataclass
class ScriptedSink:
    """A sink that answers as a test says: ``answer`` returns an outcome or an error to raise.

    For what a real server cannot be brought to do at will. ``threading.Event`` ``gate`` holds calls up.
    """

    answer: Callable[[Write], Outcome | Exception] = lambda write: Outcome(len(write.lines), 0)
    writes: list[Write] = field(default_factory=list)
    hurried: list[tuple[float, float]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def write(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> Outcome:
        """Answer as told."""
        self.gate.wait()
        write = Write(stream, columns, list(lines))
        self.writes.append(write)
        outcome = self.answer(write)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def hurry(self, call_seconds: float, at: float) -> None:
        """Remember it."""
        self.hurried.append((call_seconds, at))

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def refuses(error: SinkError) -> Callable[[Write], Outcome | Exception]:
    """Return an answer: always this error."""
    return lambda _write: error


def chosen_seed(default: int = 1) -> int:
    """Return the seed of this run: ``TEST_SEED`` in the environment."""
    return int(os.environ.get("TEST_SEED", default))


def seeded(name: str, default: int = 1) -> random.Random:
    """Return chance that a failing test can be repeated with: ``TEST_SEED`` in the environment."""
    seed = chosen_seed(default)
    print(f"{name}: TEST_SEED={seed}")
    return random.Random(seed)


class Seen(NamedTuple):
    """An observation: of a key, at a minute, with a content."""

    key: str
    minute: float
    content: str

    @property
    def line(self) -> bytes:
        """Its COPY line."""
        return observation(self.key, self.content, self.minute)

    @property
    def place(self) -> tuple[str, float, bytes]:
        """Where it stands in the history: equal moments are ordered by the hash of the content."""
        json = orjson.dumps({"key": self.key, "value": self.content}, option=orjson.OPT_SORT_KEYS)
        return self.key, self.minute, hash128(json)


def run_length_encoded(seen: Iterable[Seen]) -> list[Seen]:
    """The oracle: of each key's history, in order of time, keep what differs from the one before it."""
    kept: list[Seen] = []
    for each in sorted(set(seen), key=lambda one: one.place):
        if not kept or (kept[-1].key, kept[-1].content) != (each.key, each.content):
            kept.append(each)
    return kept


def after_batch(history: Iterable[Seen], batch: Iterable[Seen]) -> list[Seen]:
    """The oracle for any order of arrival: what is stored once a batch has come on top of a history.

    Of each run of equal neighbours in both together, the stored one stays, or else the first is stored.
    """
    before = set(history)
    runs: list[list[Seen]] = []
    for each in sorted(before | set(batch), key=lambda one: one.place):
        if runs and (runs[-1][0].key, runs[-1][0].content) == (each.key, each.content):
            runs[-1].append(each)
        else:
            runs.append([each])
    kept = [([one for one in run if one in before] or run[:1]) for run in runs]
    return [one for run in kept for one in run]
