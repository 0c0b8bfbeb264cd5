"""How a crawl ends when it is told to, or not even told: in time, and with nothing it took lost."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.postgres import PostgresServer
from demo.sites.process import control
from tests.faults.conftest import Form
from tests.support.crawls import WITNESS, Host, LiveCrawl, make_tables, with_components
from tests.support.deliveries import Reckoning
from tests.support.delivery import chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.reckoning import reckon

pytestmark = pytest.mark.e2e

STOP = "SIGTERM, PostgreSQL up, down or frozen"
HINDRANCE = "SIGTERM, and something that never ends"
UNSAFE = "SIGTERM, and neither PostgreSQL nor the card takes items"
SECOND_SIGNAL = "second SIGTERM"
FAILING_COMPONENT = "another component that fails when the spider closes"
KILL = "SIGKILL of a crawl"
IN_TIME_SECONDS = 15.0
FOR_EVER_SECONDS = 300.0
# Of a round: no round fetches the pages of another.
PAGES = 1000
Misfortune = Callable[[PostgresServer], None]
MISFORTUNES: dict[str, Misfortune] = {
    "up": lambda _server: None,
    "down": PostgresServer.kill,
    "frozen": PostgresServer.freeze,
}


class Stop(NamedTuple):
    """How a crawl ended once it was told to."""

    status: int
    seconds: float


def wait_for_rows(host: Host, crawl: LiveCrawl, number: int) -> None:
    crawl.wait_until(lambda: host.count("stream") > number)


def wait_for_items(host: Host, crawl: LiveCrawl, number: int) -> None:
    """Wait until delivery has taken more items than this."""
    crawl.wait_until(lambda: len(host.taken()) > number)


def stop_in_time(crawl: LiveCrawl, number: signal.Signals = signal.SIGTERM) -> Stop:
    """Tell the crawl to stop; fail, with its log, if it takes 15 s or more."""
    began = time.monotonic()
    crawl.send(number)
    done = crawl.end(IN_TIME_SECONDS)
    return Stop(done.status, time.monotonic() - began)


def reckon_taken(host: Host, server: PostgresServer) -> Reckoning:
    """Return what became of every item that delivery took, once PostgreSQL is there and the spool is empty.

    Fail if an item is neither a row nor waiting before that, or if the account does not add up after it.
    """
    server.thaw()
    server.start()
    taken = host.taken()
    assert taken
    assert set(taken) <= safe_keys(host)
    found = reckon(host, list(map(int, taken)))
    assert host.report("spool", "status")["findings"] == []
    return found


def safe_keys(host: Host) -> set[str]:
    """Return the key of every item that is a row or waits."""
    return {key for key, _content in host.versions("stream")} | set(host.waiting("stream"))


def enter(
    fault_report: FaultReport,
    fault: str,
    form: Form,
    thrown: dict[str, int],
    found: Reckoning,
    seconds: float,
    *,
    seed: int | None = None,
    figures: str = "",
) -> None:
    """Enter a trial that cost nothing; ``seconds`` is the longest stop."""
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    fault_report.trials.append(
        Trial(fault, form.name, seed, thrown, *found, longest_call_seconds=seconds, figures=figures)
    )


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("state", "number"),
    [
        pytest.param("up", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("up", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("down", signal.SIGTERM, marks=pytest.mark.slow),
        ("frozen", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_crawl_in_time_and_what_it_took_is_safe(
    state: str,
    number: signal.Signals,
    host: Host,
    postgres: PostgresServer,
    form: Form,
    fault_report: FaultReport,
) -> None:
    """In a round of its own for each random moment."""
    chance = seeded(STOP)
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_SHUTDOWN_SECONDS": "1"})
    longest = 0.0
    rounds = form.pick(short=1, full=5)
    for each in range(rounds):
        already = len(host.taken())
        stored = host.count("stream")
        with host.crawling(*host.stream(first_page=each * PAGES, pages=PAGES, pause=0.02)) as crawl:
            wait_for_rows(host, crawl, stored + 100)
            MISFORTUNES[state](postgres)
            wait_for_items(host, crawl, len(host.taken()) + 200)
            time.sleep(chance.uniform(0.0, 1.0) if form.is_full else 0.0)
            stop = stop_in_time(crawl, number)
            assert stop.status == 0, crawl.log.read_text()
        longest = max(longest, stop.seconds)
        run = host.run()
        assert (run.status, run.counts.lost) == ("interrupted", 0)
        assert run.counts.scraped == len(host.taken()) - already
        found = reckon_taken(host, postgres)
    jobs = host.query("SELECT status, records_processed FROM crawler_jobs ORDER BY start_time")
    assert jobs == [("interrupted", each.counts.scraped) for each in host.runs()]
    thrown = {f"{number.name}, PostgreSQL {state}": rounds}
    enter(fault_report, STOP, form, thrown, found, longest, seed=chosen_seed())


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
@pytest.mark.parametrize("hindrance", ["page", "callback", "component"])
def test_what_never_ends_does_not_keep_the_process_from_ending(
    state: str,
    hindrance: str,
    host: Host,
    postgres: PostgresServer,
    sites: dict[str, str],
    form: Form,
    fault_report: FaultReport,
) -> None:
    options: tuple[str, ...] = ()
    arguments: dict[str, object] = {"pages": PAGES, "pause": 0.02}
    if hindrance == "page":
        control(sites["books"], faults=[{"kind": "delay", "delay_seconds": FOR_EVER_SECONDS}])
        arguments["slow_url"] = sites["books"]
        options = ("-s", "DOWNLOAD_TIMEOUT=300")
    elif hindrance == "callback":
        arguments["blocks_at"] = 1000
    else:
        options = with_components("ITEM_PIPELINES", **WITNESS, **{"components.SlowAtClose": 100})
    with host.crawling(*host.stream(*options, **arguments)) as crawl:
        wait_for_rows(host, crawl, 100)
        MISFORTUNES[state](postgres)
        if hindrance == "callback":
            crawl.wait_for_log("This callback never ends")
        else:
            wait_for_items(host, crawl, 1000)
        stop = stop_in_time(crawl)
        assert stop.status == 0, crawl.log.read_text()
    assert (host.run().status, host.run().counts.lost) == ("interrupted", 0)
    thrown = {f"{hindrance} that never ends, PostgreSQL {state}": 1}
    enter(fault_report, HINDRANCE, form, thrown, reckon_taken(host, postgres), stop.seconds)


@contextmanager
def unusable(file: Path) -> Iterator[None]:
    """Have nothing that can be opened in the place of a file."""
    aside = file.with_name("aside")
    file.rename(aside)
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        aside.rename(file)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["down", "frozen"])
def test_a_crawl_that_ends_with_items_nobody_took_says_so_and_the_next_one_fetches_them(
    state: str, host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    memory = with_components("SPIDER_MIDDLEWARES", **{"components.PageMemory": 500})
    file = ("-s", f"PAGE_MEMORY={host.folder / 'page-memory'}")
    pages = host.stream(*memory, *file, pages=60, pause=0.02)
    with host.crawling(*pages) as crawl:
        wait_for_rows(host, crawl, 100)
        with unusable(host.state_dir / "spool.sqlite"):
            MISFORTUNES[state](postgres)
            crawl.wait_for_log("Items wait in RAM and the crawl waits for them")
            stop = stop_in_time(crawl)
    assert stop.status == 1, crawl.log.read_text()
    run = host.run()
    assert run.status == "failed"
    assert f"{run.counts.lost} of {run.counts.scraped} items are not safe" in (run.error or "")
    postgres.thaw()
    postgres.start()
    assert 0 < run.counts.lost == len(set(host.taken()) - safe_keys(host))

    assert host.crawl(*pages).status == 0
    found = reckon(host, range(1200))
    thrown = {f"SIGTERM, card failing, PostgreSQL {state}": 1}
    figures = f"exit status {stop.status}; the next run fetched the {run.counts.lost} items in RAM again"
    enter(fault_report, UNSAFE, form, thrown, found, stop.seconds, figures=figures)


def holding_host(host: Host) -> Host:
    """Return the host with a queue that is brought to safety only when somebody asks for it."""
    options = {"CRAWLER_DELIVERY_LINGER_SECONDS": "60", "CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "10000"}
    return Host(host.folder, host.database_url, settings=options)


def told_twice(crawl: LiveCrawl, pause_seconds: float) -> Stop:
    """Tell the crawl to stop, and again a little later: Scrapy then ends at once."""
    began = time.monotonic()
    crawl.send(signal.SIGTERM)
    time.sleep(pause_seconds)
    stop = stop_in_time(crawl)
    assert "Received SIGTERM twice, forcing unclean shutdown" in crawl.log.read_text()
    return Stop(stop.status, time.monotonic() - began)


@pytest.fixture
def endless_page(sites: dict[str, str]) -> str:
    """A page that keeps Scrapy from closing the spider: only what comes after the reactor is left."""
    control(sites["books"], faults=[{"kind": "delay", "delay_seconds": FOR_EVER_SECONDS}])
    return sites["books"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", ["up", "down", "frozen"])
def test_a_second_signal_while_items_are_held_loses_none(
    state: str,
    host: Host,
    postgres: PostgresServer,
    endless_page: str,
    form: Form,
    fault_report: FaultReport,
) -> None:
    chance = seeded(SECOND_SIGNAL)
    host = holding_host(host)
    longest = 0.0
    rounds = form.pick(short=1, full=5)
    for each in range(rounds):
        already = len(host.taken())
        arguments = {"first_page": each * PAGES, "pages": PAGES, "pause": 0.02, "slow_url": endless_page}
        with host.crawling(*host.stream(**arguments)) as crawl:
            wait_for_items(host, crawl, already + 300)
            MISFORTUNES[state](postgres)
            stop = told_twice(crawl, chance.uniform(0.1, 1.0))
        assert stop.status == 0, crawl.log.read_text()
        longest = max(longest, stop.seconds)
        run = host.run()
        assert (run.status, run.counts.lost) == ("interrupted", 0)
        assert run.counts.scraped >= len(host.taken()) - already
        found = reckon_taken(host, postgres)
    thrown = {f"second SIGTERM, PostgreSQL {state}": rounds}
    enter(fault_report, SECOND_SIGNAL, form, thrown, found, longest, seed=chosen_seed())


@pytest.mark.slow
def test_control_flushing_only_when_the_spider_closes_loses_items_and_exits_0(
    host: Host, endless_page: str, fault_report: FaultReport
) -> None:
    host = holding_host(host)
    extension = with_components("EXTENSIONS", **{"saboteurs.FlushesOnlyAtClose": 100})
    arguments = {"pages": PAGES, "pause": 0.02, "slow_url": endless_page}
    with host.crawling(*host.stream(*extension, **arguments)) as crawl:
        wait_for_items(host, crawl, 300)
        stop = told_twice(crawl, 0.3)
    lost = len(set(host.taken()) - safe_keys(host))
    assert lost >= 300
    assert stop.status == 0
    fault_report.controls.append(
        Control(
            SECOND_SIGNAL,
            "the flush after the reactor has ended: only when the spider closes",
            f"{lost} of {len(host.taken())} items lost, exit status {stop.status}",
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
def test_another_component_that_fails_at_close_costs_no_item(
    state: str, host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    """Scrapy abandons every other ``close_spider`` at the first failure."""
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "3"})
    options = with_components("ITEM_PIPELINES", **WITNESS, **{"components.FailingAtClose": 100})
    with host.crawling(*host.stream(*options, pages=60, pause=0.02)) as crawl:
        wait_for_rows(host, crawl, 100)
        MISFORTUNES[state](postgres)
        crawl.wait_for_log("Scraper close failure")
        began = time.monotonic()
        assert crawl.end(30).status == 0, crawl.log.read_text()
        seconds = time.monotonic() - began
    assert (host.run().status, host.run().counts.scraped) == ("finished", 1200)
    found = reckon_taken(host, postgres)
    assert found.items == host.count("stream") == 1200
    enter(fault_report, FAILING_COMPONENT, form, {f"PostgreSQL {state}": 1}, found, seconds)


@pytest.mark.parametrize("is_noticed_by", ["the next run", pytest.param("a look", marks=pytest.mark.slow)])
def test_a_killed_crawl_is_noted_and_run_again_it_stores_what_an_undisturbed_one_does(
    is_noticed_by: str, host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    arguments = {"pages": 30, "pause": 0.05}
    with host.crawling(*host.stream(**arguments)) as crawl:
        wait_for_rows(host, crawl, 100)
        crawl.send(signal.SIGKILL)
        assert crawl.end().status == -signal.SIGKILL
    [killed] = host.runs()
    assert killed.status == "running"
    at_the_kill = host.count("stream")
    assert at_the_kill < 600

    if is_noticed_by == "a look":
        report = host.report("spool", "status")
        assert (report["findings"], report["sources"][0]["killed"]) == ([], 1)
    host.witness.unlink()
    done = host.crawl(*host.stream(**arguments))
    assert done.status == 0, done.err
    assert (f"The run {killed.run_id} was killed" in done.err) is (is_noticed_by == "the next run")
    found = reckon_taken(host, postgres)
    assert found.items == host.count("stream") == 600
    assert [run.status for run in host.runs()] == ["killed", "finished"]
    jobs = dict(host.query("SELECT run_id, status FROM crawler_jobs"))
    assert jobs == {killed.run_id: "killed", host.run().run_id: "finished"}
    assert host.run().counts.unchanged == at_the_kill
    [source] = host.report("spool", "status")["sources"]
    assert source["killed"] == 1
    fault_report.trials.append(Trial(KILL, form.name, None, {f"noticed by {is_noticed_by}": 1}, *found))


def test_a_signal_before_the_first_page_ends_the_crawl_too(
    host: Host, form: Form, fault_report: FaultReport
) -> None:
    with host.crawling(*host.stream(pages=PAGES, pause=0.1)) as crawl:
        crawl.wait_for_log("Spider opened")
        stop = stop_in_time(crawl)
        assert stop.status in (0, 1), crawl.log.read_text()
    assert [run.status for run in host.runs()] in ([], ["interrupted"])
    nothing = Reckoning(items=len(host.taken()), lost=0, twice=0, wrong=0)
    enter(fault_report, STOP, form, {"SIGTERM before the first page": 1}, nothing, stop.seconds)


@pytest.mark.slow
def test_the_lock_of_a_killed_crawl_does_not_outlive_it(lonely_host: Host) -> None:
    with lonely_host.crawling(*lonely_host.stream(pages=PAGES, pause=0.1)) as crawl:
        crawl.wait_until(lambda: bool(lonely_host.waiting("stream")), seconds=10)
        crawl.send(signal.SIGKILL)
        crawl.end()
    assert lonely_host.scrapy("spool", "verify").status == 0


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
def test_a_signal_ends_a_crawl_that_only_drains_what_earlier_ones_left(
    state: str,
    lonely_host: Host,
    database_url: str,
    postgres: PostgresServer,
    form: Form,
    fault_report: FaultReport,
) -> None:
    make_tables(database_url)
    many_batches = {"CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "10"}
    before = Host(lonely_host.folder, settings=many_batches)
    assert before.crawl(*before.stream(pages=150)).status == 0
    host = Host(lonely_host.folder, database_url, settings=many_batches)
    with host.crawling(*host.stream(pages=0)) as crawl:
        crawl.wait_for_log("Closing spider (finished)")
        wait_for_rows(host, crawl, 50)
        MISFORTUNES[state](postgres)
        stop = stop_in_time(crawl)
        assert stop.status == 0
    assert host.run().status == "finished"
    assert host.waiting("stream")
    found = reckon_taken(host, postgres)
    enter(fault_report, STOP, form, {f"SIGTERM while draining, PostgreSQL {state}": 1}, found, stop.seconds)
