"""A crawling host of a test's own: its state on the card, its commands and crawls as real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from crawler.delivery.migration import known_migrations, migrate
from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import Account, Spool
from crawler.ledger import Run, RunLedger
from crawler.records import DeadLetter, line_fields

REPOSITORY = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
MEBIBYTE = 1024 * 1024
TEST_SPIDERS = ("-s", "SPIDER_MODULES=tests.e2e.spiders")
# Local sites are owed no politeness.
AT_FULL_SPEED = (
    *("-s", "DOWNLOAD_DELAY=0", "-s", "CONCURRENT_REQUESTS_PER_DOMAIN=16"),
    *("-s", "AUTOTHROTTLE_ENABLED=0", "-s", "RETRY_DELAY_SECONDS=0"),
)
# Behind delivery: it sees only what has been taken charge of.
WITNESS = {"components.Witness": 950}
# A spool of the real size would be written to the disk once per test.
SMALL_CARD = {"CRAWLER_SPOOL_MAX_BYTES": "8M", "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "2M"}


@dataclass(frozen=True)
class Done:
    """A process that has ended, and everything it said."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass
class LiveCrawl:
    """A crawl that runs: to be watched, told to stop, and waited for."""

    process: subprocess.Popen[bytes]
    log: Path
    started_at: float

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something is true while the crawl runs; fail, with the log, if it never is."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, f"the crawl ended too soon:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.log.read_text()}"
            time.sleep(POLL_SECONDS)

    def wait_for_log(self, text: str, seconds: float = 20.0) -> None:
        self.wait_until(lambda: text in self.log.read_text(), seconds)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 60.0) -> Done:
        """Wait for the end; fail, with the log, if it does not come."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the crawl did not end in {seconds} s:\n{self.log.read_text()}") from None
        return Done(status, "", self.log.read_text(errors="replace"), time.monotonic() - self.started_at)

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    def written_bytes(self) -> int:
        """What the process has caused to be written to the disk (proc(5), write_bytes of io)."""
        lines = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])


@dataclass
class Host:
    """One crawling host. Everything it keeps is below ``folder``."""

    folder: Path
    database_url: str | None = None
    name: str = "test-host"
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def witness(self) -> Path:
        """Where tests.e2e.components.Witness notes every item that delivery has taken charge of."""
        return self.folder / "witness"

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("CRAWLER_", "SCRAPY_", "DATABASE_URL")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"CRAWLER_STATE_DIR": str(self.state_dir), "CRAWLER_HOST_NAME": self.name}
        if self.database_url is not None:
            own["DATABASE_URL"] = self.database_url
        return {**inherited, **SMALL_CARD, **own, **self.settings}

    def scrapy(self, *arguments: str, seconds: float = 60.0, cwd: Path = REPOSITORY) -> Done:
        """Run a command of the project to its end."""
        started_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", *arguments],
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - started_at)

    def report(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it reported, whatever it found."""
        done = self.scrapy(*arguments, "--json")
        assert done.status in (0, 1), done.said
        return json.loads(done.out)

    @contextmanager
    def crawling(self, spider: str, *options: str) -> Iterator[LiveCrawl]:
        """Start a crawl; kill it if it still runs when the block ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{spider}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "scrapy", "crawl", spider, *AT_FULL_SPEED, *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=self.environment, stdout=output, stderr=output
            )
        try:
            yield LiveCrawl(process, log, time.monotonic())
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def crawl(self, spider: str, *options: str, seconds: float = 60.0) -> Done:
        """Crawl to the end."""
        with self.crawling(spider, *options) as crawl:
            return crawl.end(seconds)

    def stream(self, *options: str, **arguments: object) -> tuple[str, ...]:
        """Return the command line of the test spider ``stream``, with a witness behind delivery."""
        witness = ("-s", f"WITNESS={self.witness}", *with_components("ITEM_PIPELINES", **WITNESS))
        return stream(*witness, *options, **arguments)

    # -- what is on its card -------------------------------------------------------------------

    def taken(self) -> list[str]:
        """Return the key of every item that delivery took charge of, in order, over all runs."""
        return self.witness.read_text().split() if self.witness.exists() else []

    def runs(self, source: str | None = None) -> list[Run]:
        with closing(RunLedger(self.state_dir / "runs.sqlite")) as ledger:
            return [run for run in ledger.runs() if source in (None, run.source)]

    def run(self) -> Run:
        """Return the newest run of the ledger."""
        return self.runs()[-1]

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        cap = int(self.environment["CRAWLER_SPOOL_MAX_BYTES"].removesuffix("M")) * MEBIBYTE
        with closing(Spool(self.state_dir / "spool.sqlite", max_bytes=cap)) as spool:
            yield spool

    def waiting(self, source: str) -> list[str]:
        """Return the key of every item of a source that waits in the spool, oldest first."""
        keys = []
        with self.spool() as spool:
            for batch in spool.batches():
                if batch.stream == ("scraped_data", source):
                    assert batch.lines is not None
                    keys += [str(line_fields(line)[1]) for line in batch.lines]
        return keys

    def dead_letters(self) -> list[DeadLetter]:
        with self.spool() as spool:
            return [letter for _id, _died_at, _columns, letter in spool.dead_letters()]

    def spool_account(self, source: str) -> Account:
        with self.spool() as spool:
            [account] = [each for each in spool.accounts() if each.stream == ("scraped_data", source)]
            return account

    # -- what is in its database ---------------------------------------------------------------

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return query(self.database_url or "", sql, *values)

    def count(self, source: str) -> int:
        """Return how many rows a source has."""
        return int(self.query("SELECT count(*) FROM scraped_data WHERE source = %s", source)[0][0])

    def versions(self, source: str) -> list[tuple[str, str]]:
        """Return every version of every thing of a source: key and content hash, in order of time."""
        sql = (
            "SELECT item_key, content_hash::text FROM scraped_data WHERE source = %s"
            " ORDER BY item_key, scraped_at"
        )
        return [(key, content) for key, content in self.query(sql, source)]


def query(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement on the real server and return its rows."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall()) if cursor.description else []


def make_tables(url: str) -> None:
    """Do what ``scrapy initdb`` does, without the price of a process."""
    with closing(PostgresSink(url)) as database:
        migrate(database, known_migrations())


def stream(*options: str, **arguments: object) -> tuple[str, ...]:
    """Return the command line of the test spider ``stream``, with its arguments, as it is."""
    given = [text for name, value in arguments.items() for text in ("-a", f"{name}={value}")]
    return ("stream", *TEST_SPIDERS, *given, *options)


def with_components(setting: str, **orders: int) -> tuple[str, str]:
    """Return the option that puts components of the tests, in their order, beside the project's own.

    A component is named as in tests/e2e: ``components.Witness``.
    """
    from crawler.commands.crawl import NEEDED_COMPONENTS

    needed = {path: order for name, path, order in NEEDED_COMPONENTS if name == setting}
    ours = {f"tests.e2e.{name}": order for name, order in orders.items()}
    return ("-s", f"{setting}={json.dumps(needed | ours)}")


def addresses(base_url: str, *options: str) -> tuple[str, ...]:
    """Return the options of a crawl of a local copy."""
    return ("-a", f"base_url={base_url}", *options)


def repeated(keys: Sequence[str]) -> set[str]:
    """Return the keys that occur more than once."""
    seen: set[str] = set()
    return {key for key in keys if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
