"""The proxy's failures, seen by a real client of a real server."""

import time

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from demo.postgres import PostgresServer
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration


def ask(connection: Connection, query: str = "SELECT 1") -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return None if row is None else row[0]


def test_forwards(proxied_url: str, postgres_proxy: TcpProxy) -> None:
    connection = psycopg2.connect(proxied_url)
    text = "x" * 1_000_000
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s || ''", (text,))
        assert cursor.fetchone() == (text,)
    connection.close()
    assert postgres_proxy.accepted == 1


def test_refuses_and_comes_back(proxied_url: str, postgres_proxy: TcpProxy) -> None:
    connection = psycopg2.connect(proxied_url)
    postgres_proxy.refuse()
    with pytest.raises(psycopg2.OperationalError):
        ask(connection)
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(proxied_url)
    postgres_proxy.forward()
    again = psycopg2.connect(proxied_url)
    assert ask(again) == 1
    again.close()
    connection.close()


def test_is_deaf_to_new_connections_only(proxied_url: str, postgres_proxy: TcpProxy) -> None:
    connection = psycopg2.connect(proxied_url)
    postgres_proxy.be_deaf()
    with pytest.raises(psycopg2.OperationalError, match="timeout"):
        psycopg2.connect(proxied_url, connect_timeout=2)
    assert ask(connection) == 1
    connection.close()


def test_holds_everything_in_a_blackhole(proxied_url: str, postgres_proxy: TcpProxy) -> None:
    connection = psycopg2.connect(proxied_url, options="-c statement_timeout=0")
    postgres_proxy.blackhole()
    with pytest.raises(psycopg2.OperationalError, match="timeout"):
        psycopg2.connect(proxied_url, connect_timeout=2)
    postgres_proxy.forward()
    assert ask(connection) == 1
    connection.close()


@pytest.mark.parametrize("limit", [{"client_bytes": 500_000}, {"server_bytes": 500_000}])
def test_cuts_in_the_middle_of_a_message(
    proxied_url: str, postgres_proxy: TcpProxy, limit: dict[str, int]
) -> None:
    connection = psycopg2.connect(proxied_url)
    postgres_proxy.cut_after(**limit)
    with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT %s || ''", ("x" * 1_000_000,))
    connection.close()
    again = psycopg2.connect(proxied_url)
    assert ask(again) == 1
    again.close()


def test_swallows_the_answer_to_a_commit(
    proxied_url: str, database_url: str, postgres_proxy: TcpProxy
) -> None:
    connection = psycopg2.connect(proxied_url)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS n")
    postgres_proxy.swallow_answer(after=b"COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        connection.commit()
    connection.close()
    assert postgres_proxy.swallowed.wait(5)
    direct = psycopg2.connect(database_url)
    assert ask(direct, "SELECT n FROM kept") == 1
    direct.close()


def test_cuts_before_a_commit(proxied_url: str, database_url: str, postgres_proxy: TcpProxy) -> None:
    connection = psycopg2.connect(proxied_url)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS n")
    postgres_proxy.cut_before(b"COMMIT")
    with pytest.raises(psycopg2.OperationalError):
        connection.commit()
    connection.close()
    direct = psycopg2.connect(database_url)
    assert ask(direct, "SELECT to_regclass('kept')") is None
    direct.close()
    again = psycopg2.connect(proxied_url)
    assert ask(again) == 1
    again.commit()
    again.close()


def test_a_dead_server_behind_it_resets_the_client(
    proxied_url: str, postgres_proxy: TcpProxy, postgres: PostgresServer
) -> None:
    postgres.stop()
    began = time.monotonic()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(proxied_url)
    assert time.monotonic() - began < 2
    assert postgres_proxy.accepted == 1
