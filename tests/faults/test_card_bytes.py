"""What reaches the card, as its own counter has it: nothing while PostgreSQL is up, else little."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random
from typing import NamedTuple

import orjson
import pytest

from crawler.delivery.batch import Limits
from crawler.delivery.spool import Spool
from crawler.durable import _CLOCK_TICK_SECONDS
from demo.postgres import PostgresServer
from demo.sites import prose
from tests.conftest import MakeSink
from tests.faults.conftest import Form
from tests.support.card import Card, ext4_card
from tests.support.deliveries import Delivery, Reckoning
from tests.support.delivery import MIB, SHOP, chosen_seed, observation, observations, seeded, small_spool
from tests.support.fault_report import Control, FaultReport

pytestmark = pytest.mark.integration

SERVER_UP = "bytes on the card, PostgreSQL up"
SERVER_DOWN = "bytes on the card, PostgreSQL down"
# With its key, hashes and times that makes a line of 1.2 kB.
DESCRIPTION_CHARACTERS = 965
BATCHES_OF_500 = Limits(batch_max_items=500, batch_max_bytes=MIB, linger_seconds=0.5)
ROW_BY_ROW = Limits(batch_max_items=1)


@pytest.fixture
def card() -> Iterator[Card]:
    """A card with a real file system."""
    with ext4_card(64 * MIB) as card:
        yield card


@pytest.fixture
def card_spool(card: Card) -> Iterator[Spool]:
    """A spool on it."""
    with closing(small_spool(card.folder, max_bytes=16 * MIB)) as spool:
        yield spool


def written_for(card: Card, delivery: Delivery, lines: list[bytes]) -> int:
    """Deliver lines; return how many bytes that wrote to the card."""
    before = card.written_bytes()
    delivery.secure(lines, seconds=60)
    return card.written_bytes() - before


def books(number: int, chance: Random) -> list[bytes]:
    """Return lines of 1.2 kB, as the books of the local site make them."""
    lines = []
    for n in range(number):
        data = {
            "title": prose.title(chance),
            "price": round(chance.uniform(5, 80), 2),
            "rating": chance.randint(1, 5),
            "description": prose.paragraph(chance, 14)[:DESCRIPTION_CHARACTERS],
        }
        lines.append(observation(f"key-{n}", None, 0, data=orjson.dumps(data)))
    return lines


def test_while_postgresql_is_up_the_card_gets_nothing(
    card: Card,
    card_spool: Spool,
    make_sink: MakeSink,
    schema_url: str,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """Once a courier is at work: opening the spool makes what is missing, and soon a look is free."""
    with closing(Delivery(make_sink(schema_url), card_spool)) as delivery:
        delivery.secure(observations(1))
        time.sleep(2 * _CLOCK_TICK_SECONDS)
        delivery.secure(observations(1, first=1))
        written = written_for(card, delivery, observations(10_000, first=2))
        reckoning = delivery.reckon(schema_url)
    assert written == 0
    assert reckoning == Reckoning(items=10_002, lost=0, twice=0, wrong=0)
    figures = f"{written} bytes written"
    fault_report.trials.append(
        delivery.trial(reckoning, fault=SERVER_UP, form=form.name, thrown={}, figures=figures)
    )


def test_a_detour_over_the_card_is_seen(
    card: Card, card_spool: Spool, make_sink: MakeSink, schema_url: str, fault_report: FaultReport
) -> None:
    """The control: a courier that writes every batch to the card first."""
    with closing(Delivery(make_sink(schema_url), card_spool, spool_first={SHOP})) as delivery:
        delivery.secure(observations(1))
        written = written_for(card, delivery, observations(1000, first=1))
    assert written > 4096
    fault_report.controls.append(Control(SERVER_UP, "spools first", f"{written:,} bytes for 1,000 items"))


class Bytes(NamedTuple):
    """How many bytes an outage wrote to the card."""

    filled: int
    drained: int

    @property
    def all(self) -> int:
        return self.filled + self.drained


OutageOf = Callable[[list[bytes], Limits], tuple[Delivery, Bytes]]


@pytest.fixture
def outage_of(
    card: Card, card_spool: Spool, make_sink: MakeSink, schema_url: str, postgres: PostgresServer
) -> OutageOf:
    """Return what an outage costs the card: lines that come while PostgreSQL is down, and are taken later."""

    def outage(lines: list[bytes], limits: Limits) -> tuple[Delivery, Bytes]:
        sink = make_sink(schema_url)
        with closing(Delivery(sink, card_spool, limits=limits, drain_batches_per_second=1000.0)) as delivery:
            postgres.stop()
            filled = written_for(card, delivery, lines)
            before = card.written_bytes()
            postgres.start()
            delivery.drain(seconds=60)
        return delivery, Bytes(filled, card.written_bytes() - before)

    return outage


def test_while_postgresql_is_down_an_item_costs_half_a_kilobyte(
    outage_of: OutageOf, schema_url: str, form: Form, fault_report: FaultReport
) -> None:
    """To write it, to send it and to forget it, with everything the file system writes along."""
    lines = books(form.pick(short=5_000, full=20_000), seeded("books"))
    assert sum(map(len, lines)) / len(lines) == pytest.approx(1200, abs=10)
    delivery, written = outage_of(lines, BATCHES_OF_500)
    assert written.filled <= 0.65 * sum(map(len, lines))
    assert written.all <= 500 * len(lines)
    reckoning = delivery.reckon(schema_url)
    assert reckoning == Reckoning(items=len(lines), lost=0, twice=0, wrong=0)
    filled, drained = written.filled // len(lines), written.drained // len(lines)
    figures = f"{filled} bytes to spool an item of 1.2 kB, {drained} to drain it"
    thrown = {"outages": 1}
    fault_report.trials.append(
        delivery.trial(
            reckoning, fault=SERVER_DOWN, form=form.name, thrown=thrown, seed=chosen_seed(), figures=figures
        )
    )


def test_a_row_an_item_costs_a_multiple(outage_of: OutageOf, fault_report: FaultReport) -> None:
    """The control: every item in a transaction of its own."""
    lines = books(60, seeded("books"))
    _, written = outage_of(lines, ROW_BY_ROW)
    assert written.all > 16_000 * len(lines)
    fault_report.controls.append(
        Control(SERVER_DOWN, "commits each item", f"{written.all // len(lines):,} bytes an item")
    )
