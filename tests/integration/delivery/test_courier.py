"""The policy: PostgreSQL first, the spool when that fails, dead letters for what never can; nothing else."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crawler.delivery.batch import Entry, Limits
from crawler.delivery.courier import Courier, Tally
from crawler.delivery.postgres import Outcome, PostgresSink, Sink
from crawler.delivery.spool import DrainLock, Spool
from crawler.exceptions import CardError, RowRefused, SinkMisconfigured, SinkTimeout, SinkUnavailable
from crawler.records import DeadLetter, Record, Stream
from crawler.tickets import Ticket
from demo.postgres import PostgresServer
from tests.conftest import MakeSink, MakeSpool
from tests.support.deliveries import eventually
from tests.support.delivery import (
    COLUMNS,
    MIB,
    SHOP,
    ScriptedSink,
    Write,
    job,
    keys_of,
    observation,
    observations,
    record,
    records,
    refuses,
    rows,
    seeded,
)
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[3]
QUICK = Limits(batch_max_items=10, linger_seconds=0.02, queue_max_items=2000)
JOBS = Stream("crawler_jobs", "shop")
NEWS = SHOP._replace(source="news")
AWAY = refuses(SinkUnavailable("away"))

MakeCourier = Callable[..., Courier]


@pytest.fixture
def make_courier(closing_stack: ExitStack, spool: Spool) -> MakeCourier:
    """Return couriers that have started, over the test's spool unless told, closed when the test ends."""

    def make(sink: Sink | None, over: Spool = spool, *, drains: bool = True, **given: Any) -> Courier:
        options: dict[str, Any] = {
            "limits": QUICK,
            "drain_batches_per_second": 1000.0,
            "chance": lambda: 0.5,
        } | given
        courier = Courier(sink, over, drain_lock=DrainLock(over.path) if drains else None, **options)
        courier.start()
        closing_stack.callback(courier.close, grace_seconds=0.2)
        return courier

    return make


@pytest.fixture
def sink(make_sink: MakeSink, schema_url: str) -> PostgresSink:
    """A sink of the real server, with its default deadline."""
    return make_sink(schema_url)


def hand_over(courier: Courier, entries: Collection[Entry]) -> None:
    for entry in entries:
        assert courier.offer(entry)


def deliver(courier: Courier, entries: Collection[Entry]) -> None:
    """Hand over, and wait until it has left RAM."""
    hand_over(courier, entries)
    assert courier.flush(10)


def waiting(spool: Spool) -> int:
    return spool.status().items


# -- PostgreSQL is up --------------------------------------------------------------------------


def test_what_is_offered_is_stored(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool
) -> None:
    courier = make_courier(make_sink(schema_url))
    deliver(courier, records(25))
    deliver(courier, records(30))
    assert courier.held == 0
    assert courier.tally(SHOP) == Tally(stored=30, unchanged=25)
    assert len(keys_of(schema_url)) == 30
    assert spool.accounts() == []


def test_while_postgresql_is_up_nothing_is_written_to_the_card(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool
) -> None:
    courier = make_courier(make_sink(schema_url))
    deliver(courier, [*records(1), job("run-1", ended=False)])
    before = fingerprint(spool.path.parent)
    deliver(courier, records(1000))
    time.sleep(0.6)
    courier.close(grace_seconds=2)
    assert fingerprint(spool.path.parent) == before


def fingerprint(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time of the last write and content of each file, but those that only hold locks."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns, hash(path.read_bytes()))
        for path in sorted(folder.iterdir())
        if path.suffix not in (".lock", ".drain")
    }


def test_a_batch_waits_no_longer_than_it_lingers(make_courier: MakeCourier) -> None:
    sink = ScriptedSink()
    courier = make_courier(sink, limits=Limits(linger_seconds=0.1))
    began = time.monotonic()
    hand_over(courier, records(3))
    assert eventually(lambda: courier.held == 0)
    assert 0.1 <= time.monotonic() - began < 1.0
    assert [len(write.lines) for write in sink.writes] == [3]


def test_the_queue_is_bounded_and_says_so(make_courier: MakeCourier) -> None:
    """Backpressure: with a server that takes its time, RAM holds no more than the queue."""
    sink = ScriptedSink()
    sink.gate.clear()
    courier = make_courier(sink, limits=Limits(batch_max_items=10, linger_seconds=0, queue_max_items=50))
    taken = sum(courier.offer(each) for each in records(200))
    assert taken == 50
    assert courier.held == 50
    sink.gate.set()
    assert eventually(lambda: courier.held == 0)
    assert courier.offer(records(1)[0])


# -- tickets -----------------------------------------------------------------------------------


class Safe:
    """Watches, whenever tickets are redeemed, whether their items are where they must be."""

    def __init__(self, items_in_safety: Callable[[], int]) -> None:
        self.redeemed = 0
        self.too_early = 0
        self._items_in_safety = items_in_safety

    def __call__(self, tickets: Counter[Ticket]) -> None:
        self.redeemed += tickets.total()
        self.too_early += self.redeemed > self._items_in_safety()


def ticketed(number: int) -> list[Record]:
    ticket = Ticket(lambda _seen: None)
    return records(number, ticket=ticket)


def test_a_ticket_is_redeemed_only_after_the_commit(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str
) -> None:
    safe = Safe(lambda: len(keys_of(schema_url)))
    deliver(make_courier(make_sink(schema_url), on_progress=safe), ticketed(60))
    assert eventually(lambda: safe.redeemed == 60)
    assert safe.too_early == 0


def test_a_ticket_is_redeemed_only_after_the_spool_has_its_item(
    make_courier: MakeCourier, spool: Spool
) -> None:
    safe = Safe(lambda: waiting(spool))
    deliver(make_courier(None, on_progress=safe), ticketed(60))
    assert eventually(lambda: safe.redeemed == 60)
    assert safe.too_early == 0


def test_redeeming_before_the_commit_would_be_seen(make_courier: MakeCourier, spool: Spool) -> None:
    """The control: a courier that acknowledges first."""
    safe = Safe(lambda: waiting(spool))

    class Hasty(Courier):
        def _secured(self, batch: list[Entry]) -> Tally:
            self._on_progress(Counter(entry.ticket for entry in batch if entry.ticket is not None))
            return super()._secured(batch)

    courier = Hasty(None, spool, limits=QUICK, on_progress=safe)
    courier.start()
    deliver(courier, ticketed(60))
    courier.close(grace_seconds=1)
    assert safe.too_early > 0


def test_a_dead_letters_ticket_is_redeemed_too(make_courier: MakeCourier, spool: Spool) -> None:
    """The page was fetched and its item is safe: fetching it again would bring the same."""
    redeemed: Counter[Ticket] = Counter()
    courier = make_courier(ScriptedSink(), on_progress=redeemed.update)
    ticket = Ticket(lambda _seen: None)
    deliver(courier, [DeadLetter(SHOP, "k", "refused", "why", b"what", False, ticket)])
    assert eventually(lambda: redeemed == {ticket: 1})
    assert courier.tally(SHOP) == Tally(dead=1)
    assert spool.status().dead == 1


# -- PostgreSQL is down ------------------------------------------------------------------------


def test_what_postgresql_does_not_take_is_in_the_spool(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool, postgres: PostgresServer
) -> None:
    courier = make_courier(make_sink(schema_url))
    deliver(courier, records(10))
    postgres.stop()
    deliver(courier, records(30, first=10))
    assert courier.tally(SHOP) == Tally(stored=10, spooled=30)
    assert waiting(spool) == 30
    assert courier.last_error
    postgres.start()
    assert eventually(lambda: len(keys_of(schema_url)) == 40)
    assert eventually(lambda: waiting(spool) == 0)
    assert courier.last_error == ""
    assert spool.verify() == []


def test_while_the_breaker_is_open_batches_do_not_wait_for_a_connect_timeout(
    make_courier: MakeCourier,
    make_sink: MakeSink,
    proxied_schema_url: str,
    postgres_proxy: TcpProxy,
    spool: Spool,
) -> None:
    postgres_proxy.be_deaf()
    courier = make_courier(make_sink(proxied_schema_url, deadline_seconds=1.0))
    hand_over(courier, records(1))
    began = time.monotonic()
    assert eventually(lambda: courier.held == 0)
    first = time.monotonic() - began
    began = time.monotonic()
    for number in range(1, 6):
        deliver(courier, records(10, first=10 * number))
    rest = time.monotonic() - began
    assert first >= 0.9
    assert rest < 0.5
    assert waiting(spool) == 51


@pytest.mark.parametrize(
    "error",
    [
        SinkUnavailable("connection lost"),
        SinkUnavailable("disk full", "53100"),
        SinkUnavailable("read only", "25006"),
        SinkUnavailable("deadlock", "40P01"),
        SinkUnavailable("serialization", "40001"),
        SinkTimeout("too slow", "57014"),
        SinkMisconfigured("no table", "42P01"),
        SinkMisconfigured("no permission", "42501"),
        SinkMisconfigured("wrong password", "28P01"),
        SinkMisconfigured("no database", "3D000"),
    ],
    ids=str,
)
def test_every_failure_of_the_server_spools_and_nothing_dies(
    make_courier: MakeCourier, spool: Spool, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    courier = make_courier(ScriptedSink(lambda _: error))
    deliver(courier, records(5))
    assert courier.tally(SHOP) == Tally(spooled=5)
    assert (waiting(spool), spool.status().dead) == (5, 0)
    assert courier.last_error == str(error)
    assert str(error) in caplog.text


def test_a_failing_server_is_tried_again_after_growing_waits(make_courier: MakeCourier, spool: Spool) -> None:
    tries: list[float] = []

    def fail(_write: Write) -> Exception:
        tries.append(time.monotonic())
        return SinkUnavailable("away")

    spool.append(SHOP, COLUMNS, observations(1))
    make_courier(ScriptedSink(fail), chance=lambda: 0.9)
    assert eventually(lambda: len(tries) == 3, 8)
    # 1 s and 2 s, less 45 % of jitter; an idle courier looks every half second.
    assert tries[1] - tries[0] >= 0.55
    assert tries[2] - tries[1] >= 1.1


def test_without_a_database_everything_waits(make_courier: MakeCourier, spool: Spool) -> None:
    courier = make_courier(None)
    deliver(courier, [*records(25), job("run-1", ended=False)])
    assert courier.tally(SHOP) == Tally(spooled=25)
    assert waiting(spool) == 26
    assert courier.close(grace_seconds=1) == 0


def test_rows_about_runs_go_the_same_way(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool, postgres: PostgresServer
) -> None:
    courier = make_courier(make_sink(schema_url))
    deliver(courier, [job("run-1", ended=False)])
    postgres.stop()
    deliver(courier, [job("run-1", ended=True)])
    assert spool.has_waiting(JOBS)
    postgres.start()
    assert eventually(lambda: waiting(spool) == 0)
    assert rows(schema_url, "SELECT status FROM crawler_jobs") == [("finished",)]
    assert courier.tally(JOBS) == Tally(stored=1, spooled=1)


# -- it comes back -----------------------------------------------------------------------------


def test_a_newer_batch_queues_behind_older_ones_of_its_stream_only(
    make_courier: MakeCourier, spool: Spool
) -> None:
    spool.append(SHOP, COLUMNS, observations(3))
    sink = ScriptedSink()
    courier = make_courier(sink, drains=False)
    deliver(courier, records(3, first=3))
    deliver(courier, records(3, source="news"))
    assert [write.stream for write in sink.writes] == [NEWS]
    assert [batch.lines for batch in spool.batches()] == [observations(3), observations(3, first=3)]


def test_the_history_stays_in_order_through_an_outage(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool, postgres: PostgresServer
) -> None:
    """A -> B -> A -> B, some of it spooled: every version has its row."""
    courier = make_courier(make_sink(schema_url), chance=lambda: 0.99)
    for number in range(12):
        if number == 3:
            postgres.stop()
        if number == 8:
            postgres.start()
            time.sleep(0.3)
        deliver(courier, [record(observation("k", "AB"[number % 2], number))])
    assert eventually(lambda: waiting(spool) == 0)
    found = rows(schema_url, "SELECT data->>'value' FROM scraped_data ORDER BY scraped_at")
    assert [value for (value,) in found] == ["A", "B"] * 6
    order = rows(schema_url, "SELECT rank() OVER (ORDER BY id) FROM scraped_data ORDER BY scraped_at")
    assert [place for (place,) in order] == list(range(1, 13)), "a newer version overtook an older one"


def test_live_items_come_before_waiting_ones(make_courier: MakeCourier, spool: Spool) -> None:
    """Waiting batches are sent at a bounded rate, also while the crawl is busy."""
    for number in range(30):
        spool.append(SHOP, COLUMNS, observations(1, first=number))
    sink = ScriptedSink()
    courier = make_courier(sink, drain_batches_per_second=10.0)
    began = time.monotonic()
    for number in range(40):
        deliver(courier, records(10, source="news", first=10 * number))
    seconds = time.monotonic() - began
    drained = sum(write.stream == SHOP for write in sink.writes)
    assert seconds < 2
    assert drained <= 10 * seconds + 2
    assert eventually(lambda: sum(write.stream == SHOP for write in sink.writes) >= drained + 3, 2)


def test_spool_first_reaches_the_card_before_postgresql(make_courier: MakeCourier, spool: Spool) -> None:
    """For a feed that never serves an item twice."""
    on_card: list[int] = []

    def look(write: Write) -> Outcome:
        on_card.append(waiting(spool))
        return Outcome(len(write.lines), 0)

    courier = make_courier(ScriptedSink(look), spool_first={SHOP})
    deliver(courier, records(10))
    assert courier.tally(SHOP) == Tally(spooled=10)
    assert eventually(lambda: waiting(spool) == 0)
    assert on_card == [10]


@pytest.mark.parametrize("table", ["scraped_data", "of_the_future"])
def test_a_batch_of_a_newer_version_is_kept(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool, table: str
) -> None:
    lines = [line.rstrip(b"\n") + b"\tnew\n" for line in observations(2)]
    spool.append(Stream(table, "shop"), f"{COLUMNS},colour", lines)
    courier = make_courier(make_sink(schema_url))
    assert eventually(lambda: "newer one" in courier.last_error)
    assert courier.close(grace_seconds=1) == 0
    assert [batch.lines for batch in spool.batches()] == [lines]
    assert spool.status().dead == 0


# -- the card ----------------------------------------------------------------------------------


def noisy(number: int, size: int = 30_000) -> Record:
    return record(observation(f"k{number}", seeded("noise", number).randbytes(size).hex(), number))


def fill_through(courier: Courier, spool: Spool) -> int:
    """Offer until the courier has refused for a while; return how many it took."""
    number = 0
    refused_since = None
    while refused_since is None or time.monotonic() - refused_since < 0.4:
        if courier.offer(noisy(number)):
            number += 1
            refused_since = None
        else:
            refused_since = refused_since or time.monotonic()
            time.sleep(0.01)
    return number


def test_a_full_spool_pauses_the_crawl_and_it_resumes_by_itself(
    make_courier: MakeCourier, make_spool: MakeSpool, caplog: pytest.LogCaptureFixture
) -> None:
    """At 95 % crawls pause; nothing is dropped; when PostgreSQL is back they go on, nobody having to act."""
    woken = threading.Event()
    spool = make_spool(max_bytes=MIB)
    sink = ScriptedSink(AWAY)
    courier = make_courier(
        sink,
        spool,
        limits=Limits(batch_max_items=4, linger_seconds=0.01, queue_max_items=12),
        on_progress=lambda _: woken.set(),
    )
    taken = fill_through(courier, spool)
    assert spool.fill() >= 0.85
    assert "at 95 % the crawl pauses" in caplog.text
    assert waiting(spool) + courier.held == taken
    assert not courier.offer(noisy(taken))
    woken.clear()
    sink.answer = lambda write: Outcome(len(write.lines), 0)
    assert eventually(lambda: waiting(spool) + courier.held == 0)
    assert woken.is_set()
    assert courier.offer(noisy(taken))
    assert courier.flush(5)
    sent = [line for write in sink.writes for line in write.lines]
    assert Counter(sent).keys() == {noisy(number).line for number in range(taken + 1)}
    assert spool.verify() == []


def test_a_pause_holds_items_back_also_when_nothing_is_in_ram(
    make_courier: MakeCourier, spool: Spool
) -> None:
    """But not the row that says how a run ended."""
    number = 0
    while spool.fill() < 0.95:
        spool.append(SHOP, COLUMNS, [noisy(number).line])
        number += 1
    courier = make_courier(None)
    assert eventually(lambda: not courier.offer(records(1)[0]))
    assert courier.flush(5)
    assert courier.held == 0
    assert not courier.offer(records(1)[0])
    deliver(courier, [job("run-1", ended=True)])
    assert spool.has_waiting(JOBS)


def test_a_failing_card_keeps_items_in_ram_until_it_works_again(
    make_courier: MakeCourier, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = Safe(lambda: waiting(spool))
    append = spool.append
    broken = True

    def fail(*arguments: Any) -> int:
        if broken:
            raise CardError("disk I/O error")
        return append(*arguments)

    monkeypatch.setattr(spool, "append", fail)
    courier = make_courier(None, on_progress=safe)
    hand_over(courier, ticketed(10))
    assert not courier.flush(0.5)
    assert (courier.held, safe.redeemed, courier.is_broken) == (10, 0, False)
    broken = False
    assert courier.flush(5)
    assert waiting(spool) == 10
    assert safe.too_early == 0


def test_an_unknown_error_breaks_the_courier_and_it_takes_nothing_more(
    make_courier: MakeCourier, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    sink = ScriptedSink(lambda _: ZeroDivisionError("a bug"))
    courier = make_courier(sink, on_progress=lambda _: told.set())
    hand_over(courier, records(1))
    assert told.wait(5)
    assert courier.is_broken
    assert not courier.offer(records(1)[0])
    assert courier.close(grace_seconds=0.1) == 1
    assert "The courier stopped" in caplog.text
    assert sink.closed


# -- the end -----------------------------------------------------------------------------------


def test_closing_delivers_what_is_held(make_courier: MakeCourier) -> None:
    sink = ScriptedSink()
    courier = make_courier(sink, limits=Limits(linger_seconds=60))
    hand_over(courier, records(7))
    assert courier.close(grace_seconds=2) == 0
    assert [len(write.lines) for write in sink.writes] == [7]
    assert sink.closed


@pytest.mark.parametrize("frozen_before", [True, False], ids=["at the first batch", "in the middle"])
def test_closing_with_a_frozen_server_spools_everything_within_its_grace(
    make_courier: MakeCourier, sink: PostgresSink, spool: Spool, postgres: PostgresServer, frozen_before: bool
) -> None:
    """Its own deadline of 10 s is longer than the grace."""
    courier = make_courier(sink)
    if not frozen_before:
        deliver(courier, records(5, first=100))
    postgres.freeze()
    hand_over(courier, records(50))
    began = time.monotonic()
    assert courier.close(grace_seconds=2) == 0
    assert time.monotonic() - began < 2.5
    assert waiting(spool) == 50


def test_haste_spools_what_a_frozen_server_does_not_take(
    make_courier: MakeCourier, make_sink: MakeSink, schema_url: str, spool: Spool, postgres: PostgresServer
) -> None:
    courier = make_courier(make_sink(schema_url))
    deliver(courier, records(5, first=100))
    postgres.freeze()
    hand_over(courier, records(30))
    courier.hurry(call_seconds=0.5, seconds=3)
    assert courier.flush(2)
    assert waiting(spool) == 30


def test_closing_sends_waiting_batches_if_it_may(make_courier: MakeCourier, spool: Spool) -> None:
    for number in range(15):
        spool.append(SHOP, COLUMNS, observations(1, first=number))
    sink = ScriptedSink()
    courier = make_courier(sink, drain_batches_per_second=100.0)
    assert courier.close(grace_seconds=2, drain_seconds=5) == 0
    assert waiting(spool) == 0
    assert len(sink.writes) == 15


def test_closing_says_what_could_not_be_made_safe(
    make_courier: MakeCourier, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise CardError("disk I/O error")

    monkeypatch.setattr(spool, "append", fail)
    courier = make_courier(None)
    hand_over(courier, records(10))
    assert courier.close(grace_seconds=0.5) == 10


# -- all of it at once -------------------------------------------------------------------------


def test_random_faults_lose_nothing_and_store_nothing_twice(
    make_courier: MakeCourier,
    make_sink: MakeSink,
    proxied_schema_url: str,
    schema_url: str,
    postgres_proxy: TcpProxy,
) -> None:
    """The whole core against cut, swallowed, stalled and refused connections, bad rows among the good."""
    chance = seeded("faults")
    courier = make_courier(make_sink(proxied_schema_url, deadline_seconds=0.5), chance=lambda: 0.99)
    faults = (
        postgres_proxy.swallow_answer,
        postgres_proxy.cut,
        lambda: postgres_proxy.cut_after(client_bytes=chance.randrange(1, 5000)),
        postgres_proxy.refuse,
        postgres_proxy.blackhole,
        postgres_proxy.forward,
        postgres_proxy.forward,
    )
    good, bad = 0, 0
    for _ in range(30):
        chance.choice(faults)()
        batch = records(chance.randint(1, 25), first=good)
        good += len(batch)
        if chance.random() < 0.3:
            batch.insert(chance.randrange(len(batch)), record(observation(f"bad-{bad}", 0, 0, data=b"{")))
            bad += 1
        hand_over(courier, batch)
        time.sleep(chance.uniform(0, 0.1))
    postgres_proxy.forward()
    assert courier.flush(10)
    assert eventually(lambda: Counter(keys_of(schema_url)) == Counter(f"key-{n}" for n in range(good)), 20)
    tally = courier.tally(SHOP)
    assert tally.stored + tally.unchanged + tally.spooled + tally.dead == good + bad
    courier.close(grace_seconds=2, drain_seconds=5)


def test_random_faults_leave_the_books_in_order(make_courier: MakeCourier, spool: Spool) -> None:
    chance = seeded("books")

    def sometimes(write: Write) -> Outcome | Exception:
        if len(write.lines) == 10 and chance.random() < 0.3:
            return SinkUnavailable("away")
        if any(b"poison" in line for line in write.lines):
            return RowRefused("poison", "22P02")
        return Outcome(len(write.lines), 0)

    class Ticking:
        """Time that runs a hundred times as fast, so that the breaker's waits pass quickly."""

        def __call__(self) -> float:
            return time.monotonic() * 100

    courier = make_courier(ScriptedSink(sometimes), clock=Ticking())
    lines = [observation(f"k{n}", "poison" if n % 17 == 0 else "good", 0) for n in range(160)]
    for first in range(0, 160, 20):
        hand_over(courier, [record(line) for line in lines[first : first + 20]])
        time.sleep(0.01)
    assert courier.flush(10)
    assert eventually(lambda: waiting(spool) == 0)
    assert courier.close(grace_seconds=100, drain_seconds=0) == 0
    tally = courier.tally(SHOP)
    (account,) = spool.accounts()
    assert account.adds_up
    assert tally.spooled == account.spooled
    assert tally.stored + tally.unchanged + account.stored + account.unchanged == 160 - 10
    assert account.dead == 10
    assert spool.verify() == []
