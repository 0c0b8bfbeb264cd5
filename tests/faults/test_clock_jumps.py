"""The wall clock is wrong by up to a day: a Raspberry Pi has none that runs without power."""

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from crawler.delivery.backoff import wait_seconds
from crawler.delivery.batch import Limits
from crawler.delivery.courier import Courier
from crawler.delivery.spool import DrainLock
from crawler.exceptions import SinkUnavailable
from tests.conftest import MakeSink, MakeSpool
from tests.faults.conftest import Form
from tests.support.clock import DAY_SECONDS, FakeClock, JumpingClock
from tests.support.deliveries import Delivery, Reckoning, eventually
from tests.support.delivery import (
    COLUMNS,
    SHOP,
    ScriptedSink,
    Write,
    chosen_seed,
    observations,
    records,
    rows,
    seeded,
)
from tests.support.fault_report import Control, FaultReport
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration

FAULT = "clock jumps of a day"
BATCH = 250
LINGER_SECONDS = 0.1
# Far from a day, and far from what a busy machine adds.
LATE_SECONDS = 5.0


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    """The only wall clock there is."""
    clock = JumpingClock(seeded("clock jumps"))
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_twice_or_out_of_order(
    make_sink: MakeSink,
    make_spool: MakeSpool,
    proxied_schema_url: str,
    schema_url: str,
    postgres_proxy: TcpProxy,
    wrong_clock: JumpingClock,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """One batch is spooled, the next queues behind it, and a third goes straight to PostgreSQL."""
    outages = form.pick(short=3, full=80)
    spool = make_spool(wall_clock=wrong_clock)
    delivery = Delivery(make_sink(proxied_schema_url), spool)
    try:
        for first in range(0, 3 * BATCH * outages, 3 * BATCH):
            postgres_proxy.refuse()
            delivery.secure(observations(BATCH, first=first))
            postgres_proxy.forward()
            delivery.secure(observations(BATCH, first=first + BATCH))
            delivery.drain()
            delivery.secure(observations(BATCH, first=first + 2 * BATCH))
    finally:
        delivery.close()
    reckoning = delivery.reckon(schema_url)
    assert reckoning == Reckoning(items=3 * BATCH * outages, lost=0, twice=0, wrong=0)
    keys = [key for (key,) in rows(schema_url, "SELECT item_key FROM scraped_data ORDER BY id")]
    batches = [int(key.removeprefix("key-")) // BATCH for key in keys]
    assert batches == sorted(batches)
    (account,) = spool.accounts()
    assert BATCH * outages <= account.spooled < reckoning.items
    fault_report.trials.append(
        delivery.trial(
            reckoning,
            fault=FAULT,
            form=form.name,
            seed=chosen_seed(),
            thrown={"jumps": wrong_clock.jumps, "outages": outages},
            figures=f"{account.spooled:,} items by way of the spool, in order",
        )
    )


def lingers(courier: Courier, batches: int) -> list[float]:
    """Hand over a few records so many times; return how long they waited for more, if not too long."""
    waits = []
    for number in range(batches):
        began = time.monotonic()
        for each in records(3, first=3 * number):
            assert courier.offer(each)
        eventually(lambda: courier.held == 0, LATE_SECONDS)
        waits.append(time.monotonic() - began)
    return waits


def misbehaves(seconds: float) -> bool:
    return not LINGER_SECONDS <= seconds < LATE_SECONDS


MakeCourier = Callable[..., Courier]


@pytest.fixture
def make_courier(closing_stack: ExitStack, make_spool: MakeSpool, wrong_clock: JumpingClock) -> MakeCourier:
    """Return couriers under the wrong clock, closed when the test ends."""

    def make(sink: ScriptedSink, **options: Any) -> Courier:
        spool = make_spool(wall_clock=wrong_clock)
        limits = Limits(linger_seconds=LINGER_SECONDS)
        courier = Courier(sink, spool, limits=limits, drain_lock=DrainLock(spool.path), **options)
        courier.start()
        closing_stack.callback(courier.close, grace_seconds=0.2)
        return courier

    return make


def test_a_batch_lingers_as_long_as_ever(make_courier: MakeCourier, form: Form) -> None:
    waits = lingers(make_courier(ScriptedSink()), form.pick(short=5, full=50))
    assert not any(map(misbehaves, waits))


def test_a_courier_that_looks_at_the_wall_clock_is_found_out(
    make_courier: MakeCourier, wrong_clock: JumpingClock, fault_report: FaultReport
) -> None:
    """The control: ``time.time`` for ``time.monotonic``."""
    courier = make_courier(ScriptedSink(), clock=wrong_clock)
    (wait,) = itertools.islice(filter(misbehaves, (lingers(courier, 1)[0] for _ in range(20))), 1)
    outcome = f"a batch lingered {wait:.2f} s instead of {LINGER_SECONDS} s"
    fault_report.controls.append(Control(FAULT, "a wall clock for the courier", outcome))


def test_a_failing_server_is_tried_again_as_soon_as_ever(make_courier: MakeCourier, form: Form) -> None:
    """After 0.75 s, 1.5 s and so on, by a courier that looks every half second."""
    tries: list[float] = []

    def fail(_write: Write) -> Exception:
        tries.append(time.monotonic())
        return SinkUnavailable("away")

    courier = make_courier(ScriptedSink(fail), chance=lambda: 0.5)
    assert courier.offer(records(1)[0])
    number = form.pick(short=2, full=4)
    assert eventually(lambda: len(tries) == number, 60)
    for failures, (one, next_one) in enumerate(itertools.pairwise(tries), 1):
        wait = wait_seconds(failures, 0.5)
        assert wait <= next_one - one < wait + LATE_SECONDS


def test_the_age_is_that_of_the_first_in_line(make_spool: MakeSpool) -> None:
    """Whatever the clock did meanwhile, once it is right again; and never less than nothing."""
    clock = FakeClock(10 * DAY_SECONDS)
    spool = make_spool(wall_clock=clock)
    spool.append(SHOP, COLUMNS, observations(1))
    for jump in (-DAY_SECONDS, 2 * DAY_SECONDS, -DAY_SECONDS + 60):
        clock.advance(jump)
        spool.append(SHOP, COLUMNS, observations(1))
        assert (spool.status().oldest_age_seconds or 0.0) >= 0.0
    assert spool.status().oldest_age_seconds == 60
    assert [batch.id for batch in spool.batches()] == [1, 2, 3, 4]
