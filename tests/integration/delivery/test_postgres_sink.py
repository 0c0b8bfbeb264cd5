"""One batch, one transaction, no call without an end. What faults of the server do: tests/faults."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg2
import pytest

from crawler.delivery.migration import known_migrations, migrate, pending_migrations
from crawler.delivery.postgres import ConnectionAttempt, Outcome, PostgresSink, Watchdog, public_address
from crawler.exceptions import (
    SchemaError,
    SinkError,
    SinkMisconfigured,
    SinkTimeout,
    SinkUnavailable,
)
from crawler.records import Stream
from demo.postgres import PostgresServer, temporary_server
from tests.conftest import MakeSink
from tests.support.deliveries import eventually
from tests.support.delivery import (
    COLUMNS,
    JOB_COLUMNS,
    SHOP,
    job,
    keys_of,
    observation,
    observations,
    rows,
)

pytestmark = pytest.mark.integration

DEADLINE = 1.0
# What a call may last beyond its deadline: threads have to be woken on a busy machine.
SLACK = 1.5


class Stopwatch:
    """How long something took."""

    def __enter__(self) -> "Stopwatch":
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


@pytest.fixture
def sink(make_sink: MakeSink, schema_url: str) -> PostgresSink:
    return make_sink(schema_url)


# -- the session and the protocol --------------------------------------------------------------


def test_the_session_is_safe_and_bounded(sink: PostgresSink) -> None:
    names = (
        "synchronous_commit statement_timeout lock_timeout idle_in_transaction_session_timeout"
        " default_transaction_isolation default_transaction_read_only client_encoding application_name"
    ).split()
    ((found,),) = sink.run(f"SELECT ARRAY[{', '.join(f'current_setting({name!r})' for name in names)}]")
    assert dict(zip(names, found, strict=True)) == {
        "synchronous_commit": "on",
        "statement_timeout": "9s",
        "lock_timeout": "6s",
        "idle_in_transaction_session_timeout": "30s",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "client_encoding": "UTF8",
        "application_name": "data-crawler",
    }


def test_the_session_is_safe_also_where_the_server_is_not(own_schema_url: str, make_sink: MakeSink) -> None:
    """The default of the NAS is not trusted."""
    name = own_schema_url.rsplit("/", 1)[1]
    rows(own_schema_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    rows(own_schema_url, f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    rows(own_schema_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    sink = make_sink(own_schema_url)
    assert sink.run("SHOW synchronous_commit") == [("on",)]
    assert sink.write(SHOP, COLUMNS, observations(2)) == Outcome(2, 0)


def test_the_socket_gives_up_a_vanished_peer(sink: PostgresSink) -> None:
    sink.run("SELECT 1")
    connection = sink._connection
    assert connection is not None
    with socket.socket(fileno=socket.dup(connection.fileno())) as end:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 2
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000


def test_an_operators_own_timeout_wins(schema_url: str, make_sink: MakeSink) -> None:
    sink = make_sink(f"{schema_url}?keepalives_idle=77&application_name=mine")
    assert sink.run("SHOW application_name") == [("mine",)]
    connection = sink._connection
    assert connection is not None
    assert connection.get_dsn_parameters()["keepalives_idle"] == "77"


def test_after_the_first_batch_two_exchanges_are_enough(
    postgres: PostgresServer, make_sink: MakeSink, schema_url: str
) -> None:
    """The server answers 'ready' once an exchange: a relay counts them."""
    with ReadyCounter(postgres.port) as relay:
        sink = make_sink(schema_url.replace(f":{postgres.port}/", f":{relay.port}/"))
        sink.write(SHOP, COLUMNS, observations(500))
        for number in range(1, 4):
            relay.ready = 0
            sink.write(SHOP, COLUMNS, observations(500, first=500 * number))
            assert relay.ready <= 2


class ReadyCounter:
    """A relay to the server that counts the messages 'ready for query'."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ready = 0
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "ReadyCounter":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (*self._ends, self._listener):
            end.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target_port))
        self._ends = (client, server)
        self._threads.append(threading.Thread(target=self._pump, args=(client, server)))
        self._threads.append(threading.Thread(target=self._pump, args=(server, client)))
        for thread in self._threads[1:]:
            thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                self.ready += chunk.count(b"Z\x00\x00\x00\x05")
                sink.sendall(chunk)
        except OSError:
            return


# -- an operator's mistakes --------------------------------------------------------------------


def test_a_database_without_our_schema_says_what_to_do(make_sink: MakeSink, database_url: str) -> None:
    with pytest.raises(SinkMisconfigured, match=r"run `scrapy initdb`") as caught:
        make_sink(database_url).write(SHOP, COLUMNS, observations(1))
    assert caught.value.sqlstate == "42P01"


def test_a_database_that_is_not_there_says_what_to_do(make_sink: MakeSink, postgres: PostgresServer) -> None:
    with pytest.raises(SinkMisconfigured, match="create it with createdb"):
        make_sink(postgres.url_of("nowhere")).write(SHOP, COLUMNS, observations(1))


def test_a_role_that_is_not_there_says_what_to_do(make_sink: MakeSink, postgres: PostgresServer) -> None:
    with pytest.raises(SinkMisconfigured, match="the login is refused"):
        make_sink(postgres.url_of("crawler", user="nobody")).write(SHOP, COLUMNS, observations(1))


def test_a_column_of_a_newer_version_is_the_operators_case(sink: PostgresSink, schema_url: str) -> None:
    lines = [line.rstrip(b"\n") + b"\tnew\n" for line in observations(2)]
    with pytest.raises(SinkMisconfigured, match="does not know: it was spooled by a newer one"):
        sink.write(SHOP, f"{COLUMNS},colour", lines)
    assert keys_of(schema_url) == []
    assert sink.write(SHOP, COLUMNS, observations(2)) == Outcome(2, 0)


def test_a_batch_of_an_older_version_with_fewer_columns_is_stored(
    sink: PostgresSink, schema_url: str
) -> None:
    """After an update the spool still holds lines as the older program wrote them."""
    columns = "host,source,item_key,data,key_hash,content_hash,scraped_at,run_id,keep_every"
    for number, names in enumerate((COLUMNS, columns, COLUMNS)):
        (line,) = observations(1, first=number)
        fields = dict(zip(COLUMNS.split(","), line.rstrip(b"\n").split(b"\t"), strict=True))
        old = b"\t".join(fields[name] for name in names.split(",")) + b"\n"
        assert sink.write(SHOP, names, [old]) == Outcome(1, 0)
    found = rows(schema_url, "SELECT item_key, url IS NULL FROM scraped_data ORDER BY id")
    assert found == [("key-0", False), ("key-1", True), ("key-2", False)]


# -- a server that is away ---------------------------------------------------------------------


def test_a_read_only_server_is_unavailable(sink: PostgresSink, schema_url: str) -> None:
    """As after a failover to a standby. Set in the session: ours wins over the server's default."""
    sink.run("SET default_transaction_read_only = on")
    with pytest.raises(SinkUnavailable) as caught:
        sink.write(SHOP, COLUMNS, observations(1))
    assert caught.value.sqlstate == "25006"
    assert sink.write(SHOP, COLUMNS, observations(1)) == Outcome(1, 0)


def test_a_lock_held_by_someone_else_does_not_hold_us_up(make_sink: MakeSink, schema_url: str) -> None:
    sink = make_sink(schema_url, deadline_seconds=DEADLINE)
    with closing(psycopg2.connect(schema_url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE scraped_data IN ACCESS EXCLUSIVE MODE")
        with Stopwatch() as watch, pytest.raises(SinkUnavailable) as caught:
            sink.write(SHOP, COLUMNS, observations(1))
        assert caught.value.sqlstate == "55P03"
        assert watch.seconds < DEADLINE
    assert sink.write(SHOP, COLUMNS, observations(1)) == Outcome(1, 0)


def test_what_a_call_has_spent_already_counts(own_schema_url: str, closing_stack: ExitStack) -> None:
    """The server must give up first, else a batch that is too large for it looks like its silence."""

    class SlowCopy(PostgresSink):
        calls = 0

        def _in_time(self) -> str:
            limit = super()._in_time()
            self.calls += 1
            if self.calls == 1:
                time.sleep(0.5)
            return limit

    rows(
        own_schema_url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.7); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON scraped_data FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    sink = closing_stack.enter_context(closing(SlowCopy(own_schema_url, deadline_seconds=DEADLINE)))
    with pytest.raises(SinkTimeout) as caught:
        sink.write(SHOP, COLUMNS, observations(1))
    assert caught.value.sqlstate == "57014"


def test_haste_ends_a_running_call_and_every_later_one(
    postgres: PostgresServer, schema_url: str, make_sink: MakeSink
) -> None:
    sink = make_sink(schema_url, deadline_seconds=30.0)
    sink.write(SHOP, COLUMNS, observations(1))
    postgres.freeze()
    hurry = threading.Timer(0.3, sink.hurry, (0.3, time.monotonic() + 1.2))
    hurry.start()
    with Stopwatch() as watch, pytest.raises(SinkUnavailable):
        sink.write(SHOP, COLUMNS, observations(2))
    assert watch.seconds < 0.6 + SLACK
    hurry.join()
    sink.hurry(30.0, time.monotonic() + 60)
    time.sleep(max(0.0, 1.3 - watch.seconds))
    with Stopwatch() as watch, pytest.raises(SinkUnavailable):
        sink.write(SHOP, COLUMNS, observations(2))
    assert watch.seconds < 0.2


# -- what a hanging name server does -----------------------------------------------------------


@pytest.fixture
def hanging_connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """``connect`` hangs, as with a name server that does not answer, until the event is set."""
    answer = threading.Event()
    connect = psycopg2.connect

    def hang(dsn: str) -> Any:
        answer.wait(20)
        return connect(dsn)

    monkeypatch.setattr(psycopg2, "connect", hang)
    yield answer
    answer.set()


def connections_to(url: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'data-crawler' AND datname = %s"
    ((number,),) = rows(url, query, (url.rsplit("/", 1)[1],))
    return int(number)


def test_a_hanging_name_server_does_not_hang_the_call(
    make_sink: MakeSink, schema_url: str, hanging_connect: threading.Event
) -> None:
    sink = make_sink(schema_url, deadline_seconds=0.5)
    with Stopwatch() as watch, pytest.raises(SinkUnavailable, match="the name server does not answer"):
        sink.write(SHOP, COLUMNS, observations(1))
    assert watch.seconds < 0.5 + SLACK
    hanging_connect.set()
    assert eventually(lambda: not connecting())
    assert connections_to(schema_url) == 0, "an abandoned attempt must not keep its connection"
    assert sink.write(SHOP, COLUMNS, observations(1)) == Outcome(1, 0)


def test_haste_ends_a_connection_attempt(
    make_sink: MakeSink, schema_url: str, hanging_connect: threading.Event
) -> None:
    sink = make_sink(schema_url, deadline_seconds=10.0)
    hurry = threading.Timer(0.2, sink.hurry, (0.2, time.monotonic() + 5))
    hurry.start()
    with Stopwatch() as watch, pytest.raises(SinkUnavailable):
        sink.write(SHOP, COLUMNS, observations(1))
    assert watch.seconds < 0.4 + SLACK


def connecting() -> bool:
    return any(thread.name == "postgres-connect" for thread in threading.enumerate())


def test_a_connection_that_comes_as_the_time_runs_out_is_ended(schema_url: str) -> None:
    """Else the first statement on it would be guarded by nothing."""
    watchdog = Watchdog(time.monotonic)
    with watchdog.limit(0.05):
        connection = ConnectionAttempt(schema_url).result(lambda: 5.0)
        assert connection is not None
        assert eventually(lambda: watchdog.expired)
        watchdog.watch(connection)
        with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    watchdog.stop()
    connection.close()


def test_a_watchdog_starts_and_stops_as_often_as_asked() -> None:
    left, right = socket.socketpair()
    watchdog = Watchdog(time.monotonic)

    class Fake:
        def fileno(self) -> int:
            return left.fileno()

    for _ in range(200):
        with watchdog.limit(60.0):
            pass
        watchdog.stop()
    watchdog.watch(Fake())  # type: ignore[arg-type]
    with watchdog.limit(0.01):
        assert right.recv(1) == b""
    assert watchdog.expired
    watchdog.stop()
    assert eventually(lambda: all(t.name != "postgres-deadline" for t in threading.enumerate()))
    left.close()
    right.close()


# -- secrets -----------------------------------------------------------------------------------

PASSWORD = "s3cret 'quoted' \\ @:/%"


def test_no_error_shows_the_password() -> None:
    with temporary_server(password=PASSWORD, durable=False) as server:
        right = PostgresSink(server.url)
        with closing(right):
            assert right.run("SELECT 1") == [(1,)]
            with pytest.raises(SinkError) as missing:
                right.run(f"SELECT 'x' FROM \"{PASSWORD}\"")
        wrong_password = "wrong-" + "pa55word"
        wrong = PostgresSink(f"postgresql://crawler:{wrong_password}@127.0.0.1:{server.port}/crawler")
        with closing(wrong), pytest.raises(SinkMisconfigured, match="the password is wrong") as caught:
            wrong.write(SHOP, COLUMNS, observations(1))
        for error, secret in ((missing.value, PASSWORD), (caught.value, wrong_password)):
            assert secret not in f"{error} {error!r}"
        assert caught.value.sqlstate == "28P01"
        assert public_address(server.url) == f"127.0.0.1:{server.port}/crawler"


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1, 1), (1, 1, 0)])
def test_a_run_is_one_row_in_whatever_order_its_ends_arrive(
    sink: PostgresSink, schema_url: str, order: tuple[int, ...]
) -> None:
    for ended in order:
        sink.write(Stream("crawler_jobs", "shop"), JOB_COLUMNS, [job("run-1", ended=bool(ended)).line])
    assert rows(schema_url, "SELECT run_id, status, records_processed, stats FROM crawler_jobs") == [
        ("run-1", "finished", 7, {"stored": 7})
    ]


def test_both_ends_of_a_run_may_be_in_one_batch(sink: PostgresSink, schema_url: str) -> None:
    lines = [job("run-1", ended=True).line, job("run-1", ended=False).line]
    assert sink.write(Stream("crawler_jobs", "shop"), JOB_COLUMNS, lines) == Outcome(1, 1)
    assert rows(schema_url, "SELECT status FROM crawler_jobs") == [("finished",)]


# -- the schema --------------------------------------------------------------------------------


def test_the_schema_is_safe_to_make_again(make_sink: MakeSink, database_url: str) -> None:
    sink = make_sink(database_url)
    known = known_migrations()
    assert pending_migrations(sink, known) == known
    assert migrate(sink, known) == known
    assert migrate(sink, known) == []
    tables = {name for (name,) in sink.run("SELECT relname FROM pg_class WHERE relkind IN ('r', 'v')")}
    assert {"scraped_data", "crawler_jobs", "system_metrics", "alerts", "latest_scraped_data"} <= tables


def test_two_hosts_may_make_the_schema_at_once(make_sink: MakeSink, database_url: str) -> None:
    sinks = [make_sink(database_url) for _ in range(4)]
    start = threading.Barrier(len(sinks))
    applied: list[int] = []

    def work(sink: PostgresSink) -> None:
        start.wait(10)
        applied.append(len(migrate(sink, known_migrations())))

    threads = [threading.Thread(target=work, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(applied) == [0, 0, 0, len(known_migrations())]


def test_a_newer_schema_is_refused(make_sink: MakeSink, own_schema_url: str) -> None:
    sink = make_sink(own_schema_url)
    sink.run("INSERT INTO crawler_schema VALUES (99, 'future', 'x')")
    with pytest.raises(SchemaError, match="install the newer program"):
        migrate(sink, known_migrations())


def test_a_failing_file_leaves_nothing_half_done(make_sink: MakeSink, database_url: str) -> None:
    sink = make_sink(database_url)
    rows(database_url, "CREATE TABLE alerts (n int)")
    with pytest.raises(SinkMisconfigured, match="use a database of its own"):
        migrate(sink, known_migrations())
    assert rows(database_url, "SELECT to_regclass('scraped_data')") == [(None,)]
    rows(database_url, "DROP TABLE alerts")
    assert migrate(sink, known_migrations()) == known_migrations()


def test_the_latest_view_shows_the_newest_version_of_each_thing(sink: PostgresSink, schema_url: str) -> None:
    lines = [observation("a", value, minute) for value, minute in (("1", 0), ("3", 2), ("2", 1))]
    sink.write(SHOP, COLUMNS, [*lines, observation("b", "9", 0)])
    found = rows(schema_url, "SELECT item_key, data->>'value' FROM latest_scraped_data ORDER BY 1")
    assert found == [("a", "3"), ("b", "9")]
