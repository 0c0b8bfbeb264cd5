"""What a measured crawl runs in: the site, a PostgreSQL with the tables, a folder for its state."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from bench.children import running
from bench.measure import Program, Usage, python_module
from crawler.delivery.migration import known_migrations, migrate
from crawler.delivery.postgres import PostgresSink
from demo.postgres import PostgresServer, temporary_server

Variant = Literal["default", "bare", "full"]

# What PostgreSQL ships with; the demonstration and the tests give it less.
AS_SHIPPED = {"shared_buffers": "128MB", "max_wal_size": "1GB"}
# A site that is not ours would be owed politeness. So many at once is Scrapy's own default.
AT_FULL_SPEED = (
    *("-s", "DOWNLOAD_DELAY=0", "-s", "CONCURRENT_REQUESTS_PER_DOMAIN=8"),
    *("-s", "AUTOTHROTTLE_ENABLED=0"),
)
# By default Scrapy logs every page and item. That it does so is not held against it.
SAME_FOR_ALL = ("-s", "LOG_LEVEL=INFO")
_FOREIGN = ("CRAWLER_", "DATABASE_URL", "SCRAPY_", "PG")


class Station:
    """Crawls of the site, in any of three ways; each gets pages, and so items, of its own."""

    def __init__(self, server: PostgresServer, site_port: int, folder: Path, processors: set[int]) -> None:
        self.server = server
        self.site_port = site_port
        self._folder = folder
        self._processors = processors
        self._next_page = itertools.count()

    def crawl(self, variant: Variant, kind: str, pages: int, form: str = "charset-gzip") -> Program:
        """Return the crawl of so many pages of a kind and form; see ``bench/server.py`` for these."""
        first = next(self._next_page) * 1_000_000
        site = f"http://127.0.0.1:{self.site_port}/{kind}/{form}/"
        arguments = ["-a", f"site={site}", "-a", f"pages={pages}", "-a", f"first={first}", *SAME_FOR_ALL]
        if variant != "default":
            arguments += AT_FULL_SPEED
        environment = environment_of(self.server.url, self._folder / "state")
        environment |= {"SCRAPY_SETTINGS_MODULE": f"bench.settings.{variant}"}
        return Program(python_module("scrapy", "crawl", kind, *arguments), environment, self._processors)

    def make_state(self) -> Usage:
        """Crawl once, so that the files of the state exist: making them is paid once in years."""
        return self.crawl("full", "listing", 1).run()


def environment_of(database_url: str, state_dir: Path) -> dict[str, str]:
    """Return the environment of a crawl, with nothing of ours that comes from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return inherited | {"CRAWLER_STATE_DIR": str(state_dir), "DATABASE_URL": database_url}


@contextmanager
def station() -> Iterator[Station]:
    """Start what crawls need; crawls keep to one processor and everything else to the others."""
    all_processors = os.sched_getaffinity(0)
    ours = {min(all_processors)}
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        try:
            os.sched_setaffinity(0, all_processors - ours or all_processors)
            with database() as server, running("bench.server") as site_port:
                started = Station(server, site_port, Path(folder), ours)
                started.make_state()
                yield started
        finally:
            os.sched_setaffinity(0, all_processors)


@contextmanager
def database() -> Iterator[PostgresServer]:
    """Start a PostgreSQL as it is shipped, fsync on, with the project's tables."""
    with temporary_server(settings=AS_SHIPPED) as server:
        with closing(PostgresSink(server.url)) as sink:
            migrate(sink, known_migrations())
        yield server
