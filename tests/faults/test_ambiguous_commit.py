"""A connection breaks around its COMMIT: nobody can tell whether the batch is stored. It is sent again."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from crawler.delivery.courier import Tally
from crawler.delivery.tables import SCRAPED_DATA, TABLES
from tests.conftest import MakeSink
from tests.faults.conftest import Form, MakeDelivery
from tests.support.deliveries import TOGETHER, Delivery, Reckoning
from tests.support.delivery import chosen_seed, observations, rows, seeded
from tests.support.fault_report import Control, FaultReport
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration

FAULT = "ambiguous commit"
ROWS = 100
# Of the message that ends a batch: "ON COMMIT" is in others.
COMMIT = b"COMMIT;"

Break = Callable[[TcpProxy, Random], None]


def swallow_the_answer(proxy: TcpProxy, _chance: Random) -> None:
    """PostgreSQL commits, and nobody hears of it."""
    proxy.swallow_answer(COMMIT)


def cut_before_commit(proxy: TcpProxy, _chance: Random) -> None:
    """PostgreSQL has all the rows and never gets the message that commits them."""
    proxy.cut_before(COMMIT)


def cut_mid_data(proxy: TcpProxy, chance: Random) -> None:
    """The rows of a batch take at least twice as many bytes; logging in takes fewer."""
    proxy.cut_after(client_bytes=chance.randrange(2_000, 12_000))


def throw(delivery: Delivery, break_it: Break, proxy: TcpProxy, chance: Random, number: int) -> None:
    """Let the fault meet a batch on its way to PostgreSQL and, every other time, out of the spool too."""
    break_it(proxy, chance)
    delivery.secure(observations(ROWS, first=number * ROWS))
    if number % 2:
        break_it(proxy, chance)
    delivery.drain()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("break_it", [swallow_the_answer, cut_before_commit, cut_mid_data])
def test_a_batch_is_stored_once(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    proxied_schema_url: str,
    schema_url: str,
    postgres_proxy: TcpProxy,
    form: Form,
    fault_report: FaultReport,
    break_it: Break,
) -> None:
    chance = seeded("ambiguous commit")
    rounds = form.pick(short=1, full=20)
    delivery = make_delivery(make_sink(proxied_schema_url), limits=TOGETHER)
    for number in range(rounds):
        throw(delivery, break_it, postgres_proxy, chance, number)
    thrown = rounds + rounds // 2
    assert [error.sqlstate for error in delivery.sink.failures] == [None] * thrown
    assert delivery.courier.tally(delivery.stream) == Tally(spooled=rounds * ROWS)
    reckoning = delivery.reckon(schema_url)
    assert reckoning == Reckoning(items=rounds * ROWS, lost=0, twice=0, wrong=0)
    assert delivery.dead == []
    (account,) = delivery.spool.accounts()
    if break_it is swallow_the_answer:
        assert account.unchanged == rounds * ROWS, "the commit nobody heard of must have happened"
    else:
        assert account.stored == rounds * ROWS, "nothing must have been committed before"
    faults = {break_it.__name__.replace("_", " "): thrown}
    fault_report.trials.append(
        delivery.trial(reckoning, fault=FAULT, form=form.name, seed=chosen_seed(), thrown=faults)
    )


@pytest.mark.long
def test_a_plain_insert_stores_every_row_twice(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    proxied_url: str,
    own_schema_url: str,
    postgres_proxy: TcpProxy,
    form: Form,
    fault_report: FaultReport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the same courier and spool, without the compare and the unique index behind it."""
    columns = "source, item_key, url, data, key_hash, content_hash, scraped_at, run_id, host"
    copied = f"SELECT {columns} FROM pg_temp.incoming_scraped_data"
    plain = f"INSERT INTO scraped_data ({columns}) {copied} RETURNING 1"
    monkeypatch.setitem(TABLES, SCRAPED_DATA.name, replace(SCRAPED_DATA, insert=plain))
    rows(own_schema_url, "DROP INDEX scraped_data_versions")
    rounds = form.pick(short=1, full=20)
    delivery = make_delivery(make_sink(proxied_url), limits=TOGETHER)
    for number in range(rounds):
        postgres_proxy.swallow_answer(COMMIT)
        delivery.secure(observations(ROWS, first=number * ROWS))
        delivery.drain()
    assert len(delivery.sink.failures) == rounds
    reckoning = delivery.reckon(own_schema_url)
    assert reckoning == Reckoning(items=rounds * ROWS, lost=0, twice=rounds * ROWS, wrong=0)
    fault_report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off="plain INSERT without the compare",
            outcome=f"{reckoning.twice:,} of {reckoning.items:,} rows twice",
        )
    )
