"""The NAS vanishes: every cable is plugged in, and no packet arrives any more."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from demo.postgres import PostgresServer
from tests.conftest import MakeSink
from tests.faults.conftest import Form, MakeDelivery
from tests.support.deliveries import eventually
from tests.support.delivery import make_schema, rows
from tests.support.fault_report import Control, FaultReport
from tests.support.network import FarHost
from tests.support.standstill import (
    CALLS,
    LARGE_LINE_BYTES,
    LARGE_LINES,
    Call,
    Watcher,
    sending_30_mb,
    waiting_for_the_answer,
    words,
)

pytestmark = pytest.mark.integration

FAULT = "half-open: the NAS vanished"
LONGEST_CALL_SECONDS = 12.0
# In the short form a call may last this long, and 1 s beyond, since threads have to be woken.
SHORT_DEADLINE_SECONDS = 1.0


@pytest.fixture(scope="module")
def far_host() -> Iterator[FarHost]:
    """Where PostgreSQL runs."""
    with FarHost() as host:
        yield host


@pytest.fixture(scope="module")
def far_database(far_host: FarHost) -> Iterator[str]:
    """The URL of a database with this version's schema on the far host."""
    with tempfile.TemporaryDirectory(prefix="data-crawler-test-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        logins = folder / "pg_hba.conf"
        logins.write_text("host all all samenet trust\n")
        settings = {"listen_addresses": far_host.address, "hba_file": str(logins)}
        server = PostgresServer(folder / "server", settings=settings)
        try:
            far_host.run(server.start)
            url = server.url.replace("127.0.0.1", far_host.address)
            make_schema(url)
            yield url
        finally:
            server.stop()


@pytest.fixture
def far_url(far_host: FarHost, far_database: str) -> Iterator[str]:
    """The same database without rows; the host is reachable again after the test."""
    rows(far_database, "TRUNCATE scraped_data")
    yield far_database
    far_host.pass_packets()


@pytest.fixture
def watcher(far_host: FarHost, far_url: str) -> Iterator[Watcher]:
    """A session of the far host with itself: no cable leads to it."""
    with Watcher(far_host.run(lambda: psycopg2.connect(far_url))) as watcher:
        yield watcher


@pytest.mark.parametrize("call", CALLS)
def test_every_call_ends_and_its_items_wait_in_the_spool(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    far_host: FarHost,
    far_url: str,
    watcher: Watcher,
    form: Form,
    fault_report: FaultReport,
    call: Call,
) -> None:
    options = {} if form.is_full else {"deadline_seconds": SHORT_DEADLINE_SECONDS}
    delivery = make_delivery(make_sink(far_url, **options))
    call(delivery, watcher, far_host.drop_packets)
    if call is sending_30_mb:
        assert watcher.copies(), "the batch had arrived before the silence"
    assert delivery.courier.flush(20)
    longest = LONGEST_CALL_SECONDS if form.is_full else SHORT_DEADLINE_SECONDS + 1.0
    assert delivery.sink.longest_call_seconds <= longest
    assert [error.sqlstate for error in delivery.sink.failures] == [None]
    spooled = delivery.waiting
    assert spooled == delivery.courier.tally(delivery.stream).spooled > 0
    far_host.pass_packets()
    delivery.drain(seconds=60)
    reckoning = delivery.reckon(far_url)
    assert reckoning[1:] == (0, 0, 0)
    (account,) = delivery.spool.accounts()
    committed_unheard = spooled if call is waiting_for_the_answer else 0
    assert (account.stored, account.unchanged) == (spooled - committed_unheard, committed_unheard)
    assert delivery.dead == []
    thrown = {words(call): len(delivery.sink.failures)}
    fault_report.trials.append(delivery.trial(reckoning, fault=FAULT, form=form.name, thrown=thrown))


@pytest.mark.long
@pytest.mark.slow
def test_a_plain_connection_stays_blocked(
    far_host: FarHost, far_url: str, watcher: Watcher, form: Form, fault_report: FaultReport
) -> None:
    """The control: psycopg2 as it comes, without our timeouts and without the watchdog."""
    seconds = form.pick(short=15, full=46)
    waiting, sending_much, sending_little = (psycopg2.connect(far_url) for _ in range(3))
    with sending_much.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE much (line text)")
    calls = (
        Blocked("waiting for the answer", lambda: execute(waiting, "SELECT pg_sleep(3)")),
        Blocked("sending 30 MB", lambda: copy(sending_much, b"x" * LARGE_LINE_BYTES + b"\n", LARGE_LINES)),
        Blocked("sending a batch", lambda: execute(sending_little, "SELECT 1")),
        Blocked("connecting", lambda: psycopg2.connect(far_url)),
    )
    try:
        began = time.monotonic()
        calls[0].start()
        calls[1].start()
        assert eventually(watcher.copies)
        far_host.drop_packets()
        assert watcher.copies(), "the large one had ended before the silence"
        calls[2].start()
        calls[3].start()
        time.sleep(seconds)
        blocked = [call.name for call in calls if call.is_alive()]
        blocked_seconds = time.monotonic() - began
    finally:
        far_host.hang_up()
        for call in calls:
            call.join(10)
    assert blocked == [call.name for call in calls]
    assert not any(call.is_alive() for call in calls), "a closed socket must have ended it"
    fault_report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off="psycopg2's defaults, no watchdog",
            outcome=f"{', '.join(blocked)}: still blocked after {blocked_seconds:.0f} s",
        )
    )


class Blocked(threading.Thread):
    """A call that is going to wait for ever, and ends with an error when its socket is closed."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._call = call

    def run(self) -> None:
        with suppress(psycopg2.OperationalError):
            self._call()


def execute(connection: Connection, statement: str) -> None:
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)


def copy(connection: Connection, line: bytes, lines: int) -> None:
    with closing(connection), connection.cursor() as cursor:
        cursor.copy_expert("COPY much FROM STDIN", BytesIO(line * lines))
