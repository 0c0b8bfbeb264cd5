"""Rows PostgreSQL never takes, among rows it takes: those are stored, exactly these become dead letters."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from crawler.delivery.courier import Tally
from tests.conftest import MakeSink
from tests.faults.conftest import Form, MakeDelivery
from tests.support.deliveries import TOGETHER, Delivery, eventually
from tests.support.delivery import (
    COLUMNS,
    SHOP,
    chosen_seed,
    keys_of,
    observation,
    observations,
    rows,
    seeded,
)
from tests.support.fault_report import Control, FaultReport

pytestmark = pytest.mark.integration

FAULT = "poison among good rows"
BATCH = TOGETHER.batch_max_items


def with_data(data: bytes) -> Callable[[int], bytes]:
    """Return a maker of lines with this in place of their JSON."""
    return lambda number: observation(f"bad-{number}", number, 0, data=data)


def with_changed(old: bytes, new: bytes) -> Callable[[int], bytes]:
    """Return a maker of lines that were good, but for this."""
    return lambda number: observation(f"bad-{number}", number, 0).replace(old, new, 1)


# What a row is like, by the code with which PostgreSQL refuses it.
KINDS: dict[str, Callable[[int], bytes]] = {
    "22P05 NUL in a text": with_data(b'{"v":"\\u0000"}'),
    "22P02 not JSON": with_data(b'{"v":'),
    "22P02 NaN": with_data(b'{"v":NaN}'),
    "22P02 Infinity": with_data(b'{"v":-Infinity}'),
    "22P02 lone surrogate": with_data(b'{"v":"\\ud800"}'),
    "22003 exponent out of range": with_data(b'{"v":1e1000000}'),
    "22003 140,000 digits": with_data(b'{"v":' + b"9" * 140_000 + b"}"),
    "54001 nested too deeply": with_data(b"[" * 100_000 + b"]" * 100_000),
    "22021 bytes that are not UTF-8": with_data(b'{"v":"\xff"}'),
    "22021 NUL in the key": with_changed(b"bad-", b"bad\0"),
    "22008 no such month": with_changed(b"2026-01-01T", b"2026-13-01T"),
    "22008 time out of range": with_changed(b"2026-01-01T", b"300000-01-01T"),
    "22P02 hash that is none": lambda number: swap_field(observation(f"bad-{number}", number, 0), 4, b"none"),
    "23502 no source": lambda number: swap_field(observation(f"bad-{number}", number, 0), 0, b"\\N"),
    "22P04 too few fields": lambda number: (
        observation(f"bad-{number}", number, 0).rsplit(b"\t", 2)[0] + b"\n"
    ),
    "22P04 too many fields": with_changed(b"\n", b"\tmore\n"),
}


def swap_field(line: bytes, place: int, field: bytes) -> bytes:
    """Return the line with another field at a place."""
    fields = line.split(b"\t")
    return b"\t".join([*fields[:place], field, *fields[place + 1 :]])


def buried(delivery: Delivery) -> dict[bytes, str]:
    """Return the code of each dead letter, by its line."""
    return {letter.payload: letter.code for letter in delivery.dead}


def goes_on(delivery: Delivery) -> None:
    """Assert that what comes next is stored, and that nothing waits."""
    delivery.secure(observations(10, first=len(delivery.lines), source=delivery.stream.source))
    delivery.drain()
    assert delivery.courier.held == 0
    assert delivery.courier.last_error == ""


def test_each_kind_alone_is_refused_with_its_code(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    schema_url: str,
    form: Form,
    fault_report: FaultReport,
) -> None:
    delivery = make_delivery(make_sink(schema_url))
    bad: dict[bytes, str] = {}
    for kind, make in KINDS.items():
        line = make(len(bad))
        bad[line] = kind[:5]
        delivery.secure([line])
        assert buried(delivery) == bad, kind
        goes_on(delivery)
    assert all(letter.replayable for letter in delivery.dead)
    assert len(delivery.sink.calls) == 2 * len(bad)
    reckoning = delivery.reckon(schema_url, but=bad)
    assert reckoning[1:] == (0, 0, 0)
    thrown = {f"of each of {len(bad)} kinds": len(bad)}
    fault_report.trials.append(delivery.trial(reckoning, fault=FAULT, form=form.name, thrown=thrown))


@pytest.mark.slow
def test_a_text_larger_than_jsonb_takes_is_refused_with_its_code(
    make_delivery: MakeDelivery, make_sink: MakeSink, schema_url: str
) -> None:
    """54000, which psycopg2 calls an operational error, like a lost connection. The limit is 256 MB."""
    sink = make_sink(schema_url, deadline_seconds=100.0)
    delivery = make_delivery(sink, limits=replace(TOGETHER, queue_max_bytes=1024**3))
    line = with_data(b'{"v":"' + b"x" * 270_000_000 + b'"}')(1)
    delivery.secure([line], seconds=100)
    assert buried(delivery) == {line: "54000"}
    goes_on(delivery)


def test_what_only_looks_like_poison_is_stored(
    make_delivery: MakeDelivery, make_sink: MakeSink, schema_url: str
) -> None:
    nested = observation("nested", 0, 0, data=b"[" * 7_000 + b"]" * 7_000)
    long_key = observation("k" + "9" * 9_000, 0, 0)
    delivery = make_delivery(make_sink(schema_url))
    delivery.secure([nested, long_key])
    assert delivery.dead == []
    # Python's own reader of JSON would refuse the nested one.
    assert sorted(keys_of(schema_url)) == sorted(["nested", "k" + "9" * 9_000])


# A rule of the operator's own that the longest key breaks, by the code of the refusal.
RULES = {
    "23514": "ALTER TABLE scraped_data ADD CHECK (length(item_key) < 3000)",
    "22001": "DROP VIEW latest_scraped_data; ALTER TABLE scraped_data ALTER item_key TYPE varchar(3000)",
    "54000": "CREATE INDEX ON scraped_data (item_key)",
}


@pytest.mark.parametrize("code", RULES)
def test_a_row_against_a_rule_of_the_operator_dies_alone(
    make_delivery: MakeDelivery, make_sink: MakeSink, own_schema_url: str, code: str
) -> None:
    rows(own_schema_url, RULES[code])
    # An index compresses what it can: these letters have no pattern.
    key = seeded("poison by a rule").randbytes(4500).hex()
    lines = [*observations(10), observation(key, 0, 0)]
    delivery = make_delivery(make_sink(own_schema_url))
    delivery.secure(lines)
    assert buried(delivery) == {lines[-1]: code}
    assert [letter.key for letter in delivery.dead] == [key]
    assert delivery.courier.tally(SHOP) == Tally(stored=10, dead=1)
    goes_on(delivery)
    assert delivery.reckon(own_schema_url, but=lines[-1:])[1:] == (0, 0, 0)


def batch_with(chance: Random, bad: int, *, first: int) -> tuple[list[bytes], dict[bytes, str]]:
    """Return 500 lines of which some are bad, at random places, and the code of each of those."""
    lines = observations(BATCH, first=first)
    codes: dict[bytes, str] = {}
    for place in chance.sample(range(BATCH), bad):
        kind = chance.choice(list(KINDS))
        lines[place] = KINDS[kind](first + place)
        codes[lines[place]] = kind[:5]
    return lines, codes


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["straight", "out of the spool"])
@pytest.mark.parametrize(("bad", "most_transactions"), [(1, 20), (5, 70), (50, 360)])
def test_of_500_rows_exactly_the_bad_ones_die(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    schema_url: str,
    form: Form,
    fault_report: FaultReport,
    bad: int,
    most_transactions: int,
    way: str,
) -> None:
    chance = seeded("poison")
    spool_first = {SHOP} if way == "out of the spool" else ()
    delivery = make_delivery(make_sink(schema_url), limits=TOGETHER, spool_first=spool_first)
    codes: dict[bytes, str] = {}
    transactions = []
    for number in range(form.pick(short=1, full=20)):
        lines, codes_of_batch = batch_with(chance, bad, first=number * BATCH)
        codes |= codes_of_batch
        calls_before = len(delivery.sink.calls)
        delivery.secure(lines)
        delivery.drain()
        assert buried(delivery) == codes
        transactions.append(len(delivery.sink.calls) - calls_before)
    assert max(transactions) <= most_transactions
    assert {columns for _, _, columns, _ in delivery.spool.dead_letters()} == {COLUMNS}
    goes_on(delivery)
    reckoning = delivery.reckon(schema_url, but=codes)
    assert reckoning[1:] == (0, 0, 0)
    assert delivery.spool.verify() == []
    fault_report.trials.append(
        delivery.trial(
            reckoning,
            fault=FAULT,
            form=form.name,
            seed=chosen_seed(),
            thrown={f"in batches with {bad} in {BATCH}, {way}": len(codes)},
            figures=f"{min(transactions)} to {max(transactions)} transactions a batch",
        )
    )


def test_a_batch_of_bad_rows_only_dies_completely(
    make_delivery: MakeDelivery, make_sink: MakeSink, schema_url: str
) -> None:
    delivery = make_delivery(make_sink(schema_url))
    lines = [KINDS["22P02 not JSON"](number) for number in range(20)]
    delivery.secure(lines)
    assert buried(delivery) == dict.fromkeys(lines, "22P02")
    goes_on(delivery)


def test_a_nesting_taken_for_an_absent_server_stops_the_queue(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    schema_url: str,
    form: Form,
    fault_report: FaultReport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: psycopg2 calls 54001 an operational error too; who waits for it to pass waits for ever."""
    monkeypatch.setattr("crawler.delivery.sqlstate._ROW_CLASSES", ("22", "23"))
    delivery = make_delivery(make_sink(schema_url))
    delivery.secure([*observations(10), KINDS["54001 nested too deeply"](1)])
    stuck(delivery, "54001", schema_url, form, fault_report)


def slow_inserts(url: str) -> None:
    """Let each row take its time: ten together take more than a second, five of them do not."""
    rows(
        url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.11); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON scraped_data FOR EACH ROW EXECUTE FUNCTION slow()",
    )


def test_a_batch_that_takes_too_long_is_sent_in_halves(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    own_schema_url: str,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """57014, which PostgreSQL says of a statement it gave up, whatever it was that took so long."""
    slow_inserts(own_schema_url)
    delivery = make_delivery(make_sink(own_schema_url, deadline_seconds=1.0))
    delivery.secure(observations(10))
    assert delivery.courier.tally(SHOP) == Tally(spooled=10)
    delivery.drain()
    codes = [error.sqlstate for error in delivery.sink.failures]
    assert codes == ["57014", "57014"], "the second time from the spool"
    assert delivery.dead == []
    reckoning = delivery.reckon(own_schema_url)
    assert reckoning[1:] == (0, 0, 0)
    fault_report.trials.append(
        delivery.trial(reckoning, fault=FAULT, form=form.name, thrown={"too slow (57014)": len(codes)})
    )


@pytest.mark.slow
def test_a_slow_batch_taken_for_an_absent_server_stops_the_queue(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    own_schema_url: str,
    form: Form,
    fault_report: FaultReport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: to send it whole again is to wait for ever."""
    monkeypatch.setattr("crawler.delivery.sqlstate._QUERY_CANCELED", "")
    slow_inserts(own_schema_url)
    delivery = make_delivery(make_sink(own_schema_url, deadline_seconds=1.0))
    delivery.secure(observations(10))
    stuck(delivery, "57014", own_schema_url, form, fault_report)


def stuck(delivery: Delivery, code: str, url: str, form: Form, report: FaultReport) -> None:
    """Assert that what waits is tried again and again, and that good rows wait behind it."""
    delivery.secure(observations(10, first=10))
    attempts = form.pick(short=3, full=5)
    assert eventually(lambda: len(delivery.sink.failures) >= attempts, 60)
    assert {error.sqlstate for error in delivery.sink.failures} == {code}
    assert delivery.waiting == len(delivery.lines)
    assert keys_of(url) == []
    waiting = f"{delivery.waiting} of {len(delivery.lines)} rows wait, none is stored"
    report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off=f"{code} means that the server is away",
            outcome=f"after {len(delivery.sink.failures)} attempts {waiting}",
        )
    )
