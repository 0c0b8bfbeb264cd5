"""PostgreSQL stands still while its kernel lives (SIGSTOP): connections stay open, and nothing answers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg2
import pytest

from crawler.delivery.postgres import PostgresSink, Watchdog
from demo.postgres import PostgresServer
from tests.conftest import MakeSink
from tests.faults.conftest import Form, MakeDelivery
from tests.support.deliveries import Delivery
from tests.support.delivery import observation, observations
from tests.support.fault_report import Control, FaultReport
from tests.support.standstill import (
    CALLS,
    Call,
    Watcher,
    sending_a_batch,
    words,
)

pytestmark = pytest.mark.integration

FAULT = "frozen PostgreSQL (SIGSTOP)"
BEYOND_SECONDS = 1.0


@pytest.fixture
def watcher(postgres: PostgresServer, schema_url: str) -> Iterator[Watcher]:
    """A session beside those of the courier. It freezes with them."""
    with Watcher(psycopg2.connect(schema_url)) as watcher:
        yield watcher


def deadline_seconds(form: Form) -> float:
    """Return how long a call may last: the default, or less where there is no time for it."""
    return 10.0 if form.is_full else 1.0


def hold(delivery: Delivery, form: Form) -> None:
    """Assert that the call which met the frozen server ended in time, and its items are on the card."""
    assert delivery.courier.flush(20)
    assert delivery.sink.longest_call_seconds <= deadline_seconds(form) + BEYOND_SECONDS
    assert [error.sqlstate for error in delivery.sink.failures] == [None]
    assert delivery.waiting == delivery.courier.tally(delivery.stream).spooled > 0


@pytest.mark.parametrize("call", CALLS)
def test_every_call_ends_and_its_items_wait_in_the_spool(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    schema_url: str,
    postgres: PostgresServer,
    watcher: Watcher,
    form: Form,
    fault_report: FaultReport,
    call: Call,
) -> None:
    delivery = make_delivery(make_sink(schema_url, deadline_seconds=deadline_seconds(form)))
    call(delivery, watcher, postgres.freeze)
    hold(delivery, form)
    postgres.thaw()
    delivery.drain(seconds=60)
    reckoning = delivery.reckon(schema_url)
    assert reckoning[1:] == (0, 0, 0)
    assert delivery.dead == []
    thrown = {words(call): len(delivery.sink.failures)}
    fault_report.trials.append(delivery.trial(reckoning, fault=FAULT, form=form.name, thrown=thrown))


def test_a_rollback_ends_too(
    make_delivery: MakeDelivery,
    closing_stack: ExitStack,
    schema_url: str,
    postgres: PostgresServer,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """A row is refused, and then the server stands still: the batch has not been halved yet."""

    class FreezesFirst(PostgresSink):
        def _rolled_back(self) -> bool:
            if not delivery.sink.failures:
                postgres.freeze()
            return super()._rolled_back()

    sink = FreezesFirst(schema_url, deadline_seconds=deadline_seconds(form))
    delivery = make_delivery(closing_stack.enter_context(closing(sink)))
    bad = observation("bad", 0, 0, data=b"no JSON")
    delivery.hand_over([*observations(10), bad])
    hold(delivery, form)
    postgres.thaw()
    delivery.drain(seconds=60)
    reckoning = delivery.reckon(schema_url, but=[bad])
    assert reckoning[1:] == (0, 0, 0)
    assert [letter.payload for letter in delivery.dead] == [bad]
    thrown = {"rolling back": 1}
    fault_report.trials.append(delivery.trial(reckoning, fault=FAULT, form=form.name, thrown=thrown))


@pytest.mark.long
def test_without_the_watchdog_the_call_never_ends(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    schema_url: str,
    postgres: PostgresServer,
    watcher: Watcher,
    form: Form,
    fault_report: FaultReport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: keepalives, tcp_user_timeout and statement_timeout are on, and none of them ends it."""
    monkeypatch.setattr(Watchdog, "_shut", lambda _self: None)
    delivery = make_delivery(make_sink(schema_url, deadline_seconds=deadline_seconds(form)))
    began = time.monotonic()
    sending_a_batch(delivery, watcher, postgres.freeze)
    assert not delivery.courier.flush(form.pick(short=3, full=46))
    blocked_seconds = time.monotonic() - began
    assert delivery.waiting == 0
    postgres.thaw()
    assert delivery.courier.flush(20)
    fault_report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off="watchdog",
            outcome=f"sending a batch: still blocked after {blocked_seconds:.0f} s, nothing in the spool",
        )
    )
