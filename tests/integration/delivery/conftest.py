"""Fixtures for tests of delivery: a database with our schema, sinks and spools that are closed again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import Spool
from demo.postgres import PostgresServer
from tests.conftest import run_as_superuser
from tests.support.delivery import make_schema, rows, small_spool
from tests.support.tcp_proxy import TcpProxy

MakeSink = Callable[..., PostgresSink]
MakeSpool = Callable[..., Spool]


@pytest.fixture(scope="session")
def schema_database(postgres_of_session: PostgresServer) -> str:
    """The URL of a database with this version's schema, for the tests that leave the schema alone."""
    name = "delivery"
    run_as_superuser(postgres_of_session, f"CREATE DATABASE {name} OWNER crawler STRATEGY file_copy")
    url = postgres_of_session.url_of(name)
    make_schema(url)
    return url


@pytest.fixture
def schema_url(postgres: PostgresServer, schema_database: str) -> str:
    """The URL of a database with this version's schema and no rows."""
    rows(schema_database, "TRUNCATE scraped_data, crawler_jobs")
    return schema_database


@pytest.fixture
def own_schema_url(database_url: str) -> str:
    """The URL of a fresh database with this version's schema, which the test may change."""
    make_schema(database_url)
    return database_url


@pytest.fixture
def proxied_schema_url(schema_url: str, postgres: PostgresServer, postgres_proxy: TcpProxy) -> str:
    """The URL of the same database as ``schema_url``, by way of the proxy."""
    return schema_url.replace(f":{postgres.port}/", f":{postgres_proxy.port}/")


@pytest.fixture
def closing_stack() -> Iterator[ExitStack]:
    """What a test opens: closed, newest first, when the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_sink(closing_stack: ExitStack) -> MakeSink:
    """Return sinks that are closed when the test ends."""

    def make(url: str, **options: Any) -> PostgresSink:
        return closing_stack.enter_context(closing(PostgresSink(url, **options)))

    return make


@pytest.fixture
def make_spool(closing_stack: ExitStack, tmp_path: Path) -> MakeSpool:
    """Return openings of one small spool, closed when the test ends."""

    def make(**options: Any) -> Spool:
        return closing_stack.enter_context(closing(small_spool(tmp_path, **options)))

    return make


@pytest.fixture
def spool(make_spool: MakeSpool) -> Spool:
    """A small spool of the test's own."""
    return make_spool()
