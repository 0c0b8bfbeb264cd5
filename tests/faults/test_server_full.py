"""A volume of the NAS is full: that of the data fails statements, that of the log ends the server."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest

from crawler.delivery.postgres import PostgresSink
from crawler.exceptions import RowRefused, SinkError
from demo.postgres import PostgresServer, PostgresServerError
from tests.conftest import MakeSink, MakeSpool
from tests.faults.conftest import Form, MakeDelivery
from tests.support.card import Card, ext4_card, folder_in_ram
from tests.support.deliveries import Delivery, eventually
from tests.support.delivery import MIB, make_schema, observations
from tests.support.fault_report import Control, FaultReport

pytestmark = pytest.mark.integration

FAULT = "NAS volume full, server restarted"
ROWS = 500
# The most a row may hold before PostgreSQL compresses it: 500 rows are 1 MB of its log.
PADDING_BYTES = 1500
# The log is kept small, so that a small volume holds it.
SETTINGS = {"min_wal_size": "32MB", "max_wal_size": "48MB"}
RECOVERY_SECONDS = 60.0
OUTAGE_TICK_SECONDS = 3.0
NOTHING_LEFT = "53100"
SPOOL_BYTES = 8 * MIB


class Nas(NamedTuple):
    """A server, and a small volume of its own that holds a part of it."""

    server: PostgresServer
    volume: Card


@pytest.fixture
def volume() -> Iterator[Card]:
    """A volume that has room for a new server."""
    with ext4_card(112 * MIB) as card:
        for folder in (card.folder.parent, card.folder):
            folder.chmod(0o711)
        yield card


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder with more room: in RAM, since a server that comes back syncs all of it."""
    with folder_in_ram() as folder:
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def data_on_volume(volume: Card, elsewhere: Path) -> Iterator[Nas]:
    """A server with all but its log on the volume."""
    with closing_server(volume.folder / "server", log=elsewhere / "log") as server:
        yield Nas(server, volume)


@pytest.fixture
def log_on_volume(volume: Card, elsewhere: Path) -> Iterator[Nas]:
    """A server with its log alone on the volume."""
    with closing_server(elsewhere / "server", log=volume.folder / "log") as server:
        yield Nas(server, volume)


@contextmanager
def closing_server(folder: Path, *, log: Path) -> Iterator[PostgresServer]:
    """Given where to keep the data and where the log, start a server with our schema; stop it at the end."""
    server = PostgresServer(folder, settings=SETTINGS)
    try:
        server.start()
        make_schema(server.url)
        server.stop()
        move_log(server, log)
        server.start()
        yield server
    finally:
        server.stop()


def move_log(server: PostgresServer, to: Path) -> None:
    """Put the server's log elsewhere, as its operator does: with a link."""
    place = server.data_dir / "pg_wal"
    owner = place.stat()
    shutil.move(place, to)
    for path in (to, *to.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    place.symlink_to(to)


class Supply:
    """Rows without end, 500 at a time."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._batches = 0

    def deliver(self, batches: int = 1) -> None:
        """Deliver the next batches, each safe before the next."""
        for _ in range(batches):
            self._delivery.secure(observations(ROWS, first=self._batches * ROWS, padding=PADDING_BYTES))
            self._batches += 1

    def deliver_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Deliver until something has come about."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            self.deliver()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_full_data_volume_loses_nothing(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    make_spool: MakeSpool,
    data_on_volume: Nas,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """Each statement that needs room fails, with a code of its own; the server lives."""
    server, volume = data_on_volume
    delivery = make_delivery(make_sink(server.url), make_spool(max_bytes=SPOOL_BYTES), **backoff(form))
    supply = Supply(delivery)
    supply.deliver()
    volume.fill()
    supply.deliver_until(lambda: bool(delivery.sink.failures))
    assert delivery.sink.failures[0].sqlstate == NOTHING_LEFT
    assert server.running
    recovers(Recovery(delivery, supply, data_on_volume, form), fault_report, "data volume full")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_full_log_volume_loses_nothing(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    make_spool: MakeSpool,
    log_on_volume: Nas,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """The server ends itself in the middle of a commit, and cannot come back."""
    server, volume = log_on_volume
    delivery = make_delivery(make_sink(server.url), make_spool(max_bytes=SPOOL_BYTES), **backoff(form))
    supply = Supply(delivery)
    supply.deliver()
    volume.fill()
    supply.deliver_until(lambda: bool(delivery.sink.failures))
    assert eventually(lambda: not server.running), "the server must end itself"
    assert b"PANIC" in server.log_path.read_bytes()
    with pytest.raises(PostgresServerError, match="No space left on device"):
        server.start()
    recovers(Recovery(delivery, supply, log_on_volume, form), fault_report, "WAL volume full")


class Recovery(NamedTuple):
    """What takes part in a recovery."""

    delivery: Delivery
    supply: Supply
    nas: Nas
    form: Form


def recovers(recovery: Recovery, report: FaultReport, thrown: str) -> None:
    """Let the outage last, with a restart in between; free the volume; assert that all arrives in time."""
    delivery, supply, (server, volume), form = recovery
    supply.deliver(2)
    server.stop()
    supply.deliver()
    with suppress(PostgresServerError):
        # Where not even the file with its process id has room, it does not come up.
        server.start()
    supply.deliver()
    # Long enough, in the full form, for the longest wait between two attempts.
    outage_ends = time.monotonic() + form.pick(short=0, full=65)
    while time.monotonic() < outage_ends:
        supply.deliver()
        time.sleep(OUTAGE_TICK_SECONDS)
    spooled = delivery.waiting
    assert spooled >= 4 * ROWS
    assert delivery.dead == []

    volume.free()
    server.start()
    drain_seconds = delivery.drain(seconds=RECOVERY_SECONDS)
    reckoning = delivery.reckon(server.url)
    assert reckoning[1:] == (0, 0, 0)
    assert delivery.dead == []
    assert delivery.spool.verify() == []
    figures = f"{spooled:,} spooled, drained within {drain_seconds:.1f} s of the recovery"
    faults = {thrown: 1, "restart": 1}
    report.trials.append(
        delivery.trial(reckoning, fault=FAULT, form=form.name, thrown=faults, figures=figures)
    )


def backoff(form: Form) -> dict[str, Any]:
    """Return what the courier is to know of chance: in the full form it comes back as late as it may."""
    return {"chance": lambda: 0.0} if form.is_full else {}


def test_to_tell_errors_apart_by_their_class_buries_good_rows(
    make_delivery: MakeDelivery, closing_stack: ExitStack, data_on_volume: Nas, fault_report: FaultReport
) -> None:
    """The control: psycopg2 calls a full disk and a row that never fits by the same name."""

    class ByClass(PostgresSink):
        def _translated(self, error: psycopg2.Error) -> SinkError:
            translated = super()._translated(error)
            if isinstance(error, psycopg2.OperationalError):
                return RowRefused(str(translated), translated.sqlstate)
            return translated

    server, volume = data_on_volume
    delivery = make_delivery(closing_stack.enter_context(closing(ByClass(server.url))))
    volume.fill()
    delivery.secure(observations(20))
    buried = delivery.dead
    assert delivery.waiting == 0
    volume.free()
    assert delivery.reckon(server.url).lost == len(buried) == 20
    fault_report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off="OperationalError means a bad row",
            outcome=f"{len(buried)} of 20 good rows became dead letters",
        )
    )
