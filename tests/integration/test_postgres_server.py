"""The server that other tests break: it must break, and mend, in the way they rely on."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg2
import pytest

from demo.postgres import PostgresServer, PostgresServerError, temporary_server

pytestmark = pytest.mark.integration


def scalar(url: str, query: str) -> object:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return None if row is None else row[0]
    finally:
        connection.close()


def store_one(url: str) -> None:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    finally:
        connection.close()


def test_serves_utf8_to_an_ordinary_role(postgres: PostgresServer, database_url: str) -> None:
    assert scalar(database_url, "SHOW server_encoding") == "UTF8"
    assert scalar(database_url, "SHOW fsync") == "on"
    assert scalar(database_url, "SELECT current_setting('is_superuser')") == "off"
    assert psutil.Process(postgres.pid).uids().effective != 0


def test_listens_on_loopback_only(postgres: PostgresServer) -> None:
    listening = {
        (c.laddr.ip, c.laddr.port)
        for c in psutil.Process(postgres.pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", postgres.port)}


def test_keeps_what_was_committed_before_a_kill(postgres: PostgresServer, database_url: str) -> None:
    store_one(database_url)
    before = postgres.pid
    postgres.kill()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        scalar(database_url, "SELECT 1")
    postgres.start()
    assert postgres.pid != before
    assert scalar(database_url, "SELECT n FROM kept") == 1


def test_is_silent_while_frozen_and_answers_after(postgres: PostgresServer, database_url: str) -> None:
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    postgres.freeze()
    # libpq waits no less than two seconds for a login.
    with pytest.raises(psycopg2.OperationalError, match="timeout"):
        psycopg2.connect(database_url, connect_timeout=2)
    postgres.thaw()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()


def test_asks_for_the_password_it_was_given() -> None:
    secret = "s3cret 'quoted' \\ @:/%"
    with temporary_server(password=secret, durable=False) as server:
        assert scalar(server.url, "SELECT 1") == 1
        with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
            psycopg2.connect(f"postgresql://crawler@127.0.0.1:{server.port}/crawler")
        assert secret not in server.log_path.read_text()


def test_keeps_its_data_between_runs(open_folder: Path) -> None:
    folder = open_folder / "server"
    with PostgresServer(folder) as server:
        store_one(server.url)
        with pytest.raises(PostgresServerError, match="already uses"):
            PostgresServer(folder).start()
    with PostgresServer(folder) as server:
        assert scalar(server.url, "SELECT n FROM kept") == 1
    with pytest.raises(PostgresServerError, match="holds data of PostgreSQL 18, not of 16"):
        PostgresServer(folder, version=16).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as someone else")
def test_moves_out_of_a_folder_closed_to_its_account(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    server = PostgresServer(closed / "server")
    try:
        assert not server.folder.is_relative_to(closed)
        assert PostgresServer(closed / "server").folder == server.folder
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        with server:
            assert scalar(server.url, "SELECT 1") == 1
    finally:
        shutil.rmtree(server.folder)


OWNER = """
import sys, time
from pathlib import Path
from demo.postgres import PostgresServer
server = PostgresServer(Path(sys.argv[1]))
server.start()
if sys.argv[2] == "frozen":
    server.freeze()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_does_not_outlive_a_killed_owner(open_folder: Path, state: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(open_folder / "server"), state],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        family = [server, *server.children()]
        os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(runs(process) for process in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [process for process in family if runs(process)]


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
