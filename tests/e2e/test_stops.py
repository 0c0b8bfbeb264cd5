"""How a crawl ends when it is told to, or not even told: in time, and with nothing it took lost."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from demo.postgres import PostgresServer
from demo.sites.process import control
from tests.support.crawls import Host, LiveCrawl, make_tables, repeated

pytestmark = pytest.mark.e2e

IN_TIME_SECONDS = 15.0
FOR_EVER_SECONDS = 300.0
Misfortune = Callable[[PostgresServer], None]
MISFORTUNES: dict[str, Misfortune] = {
    "up": lambda _server: None,
    "down": PostgresServer.kill,
    "frozen": PostgresServer.freeze,
}


def stop_in_time(crawl: LiveCrawl, number: signal.Signals = signal.SIGTERM) -> int:
    """Tell the crawl to stop, and return its exit status; fail if it takes 15 s or more."""
    crawl.send(number)
    return crawl.end(IN_TIME_SECONDS).status


def assert_nothing_lost(host: Host, server: PostgresServer) -> None:
    """Every item that delivery took is a row, or waits; the account adds up once it has been sent."""
    server.thaw()
    server.start()
    taken = host.taken()
    assert taken
    assert not repeated(taken), "the test needs each thing once"
    stored = {key for key, _content in host.versions("stream")}
    waiting = set(host.waiting("stream"))
    assert set(taken) <= stored | waiting
    assert host.report("spool", "drain")["waiting"] == 0
    rows = [key for key, _content in host.versions("stream")]
    assert not repeated(rows)
    assert set(rows) >= set(taken)
    assert host.report("spool", "status")["findings"] == []


@pytest.mark.parametrize(
    ("state", "number"),
    [
        ("up", signal.SIGTERM),
        pytest.param("up", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("down", signal.SIGTERM, marks=pytest.mark.slow),
        ("frozen", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_crawl_in_time_and_what_it_took_is_safe(
    state: str, number: signal.Signals, host: Host, postgres: PostgresServer
) -> None:
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_SHUTDOWN_SECONDS": "1"})
    with host.crawling(*host.stream(pages=1000, pause=0.02)) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 100)
        MISFORTUNES[state](postgres)
        already = len(host.taken())
        crawl.wait_until(lambda: len(host.taken()) > already + 200)
        assert stop_in_time(crawl, number) == 0, crawl.log.read_text()
    run = host.run()
    assert (run.status, run.counts.lost) == ("interrupted", 0)
    assert run.counts.scraped == len(host.taken())
    assert_nothing_lost(host, postgres)
    [job] = host.query("SELECT status, records_processed FROM crawler_jobs")
    assert job == ("interrupted", run.counts.scraped)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
@pytest.mark.parametrize("hindrance", ["page", "callback", "component"])
def test_what_never_ends_does_not_keep_the_process_from_ending(
    state: str, hindrance: str, host: Host, postgres: PostgresServer, sites: dict[str, str]
) -> None:
    options: tuple[str, ...] = ()
    arguments: dict[str, object] = {"pages": 1000, "pause": 0.02}
    if hindrance == "page":
        control(sites["books"], faults=[{"kind": "delay", "delay_seconds": FOR_EVER_SECONDS}])
        arguments["slow_url"] = sites["books"]
        options = ("-s", "DOWNLOAD_TIMEOUT=300")
    elif hindrance == "callback":
        arguments["blocks_at"] = 1000
    else:
        options = with_pipelines(host, SlowAtClose=100)
    with host.crawling(*host.stream(*options, **arguments)) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 100)
        MISFORTUNES[state](postgres)
        if hindrance == "callback":
            crawl.wait_for_log("This callback never ends")
        else:
            crawl.wait_until(lambda: len(host.taken()) >= 1000)
        assert stop_in_time(crawl) == 0, crawl.log.read_text()
    assert (host.run().status, host.run().counts.lost) == ("interrupted", 0)
    assert_nothing_lost(host, postgres)


def with_pipelines(host: Host, **orders: int) -> tuple[str, str]:
    """Return the option that puts further pipelines of the tests beside delivery and its witness."""
    given = {f"tests.e2e.components.{name}": order for name, order in (orders | {"Witness": 950}).items()}
    return ("-s", f"ITEM_PIPELINES={json.dumps(given | {'pipelines.deliver.DeliverPipeline': 900})}")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["down", "frozen"])
def test_a_second_signal_while_items_are_held_loses_none(
    state: str, host: Host, postgres: PostgresServer, sites: dict[str, str]
) -> None:
    # Lingering for a minute: without the flush at the end all of them would still be in RAM.
    options = {"CRAWLER_DELIVERY_LINGER_SECONDS": "60", "CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "10000"}
    host = Host(host.folder, host.database_url, settings=options)
    # A page that never ends keeps Scrapy from closing the spider: only what comes after the reactor is left.
    control(sites["books"], faults=[{"kind": "delay", "delay_seconds": FOR_EVER_SECONDS}])
    with host.crawling(*host.stream(pages=1000, pause=0.02, slow_url=sites["books"])) as crawl:
        crawl.wait_until(lambda: len(host.taken()) > 300)
        MISFORTUNES[state](postgres)
        crawl.send(signal.SIGTERM)
        time.sleep(0.3)
        status = stop_in_time(crawl)
    log = crawl.log.read_text()
    assert status == 0, log
    assert "Received SIGTERM twice, forcing unclean shutdown" in log
    run = host.run()
    assert (run.status, run.counts.lost) == ("interrupted", 0)
    assert run.counts.scraped >= len(host.taken())
    assert_nothing_lost(host, postgres)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
def test_another_component_that_fails_at_close_costs_no_item(
    state: str, host: Host, postgres: PostgresServer
) -> None:
    """Scrapy abandons every other ``close_spider`` at the first failure."""
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "3"})
    with host.crawling(
        *host.stream(*with_pipelines(host, FailingAtClose=100), pages=60, pause=0.02)
    ) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 100)
        MISFORTUNES[state](postgres)
        assert crawl.end(30).status == 0, crawl.log.read_text()
    assert "Scraper close failure" in crawl.log.read_text()
    assert (host.run().status, host.run().counts.scraped) == ("finished", 1200)
    assert len(host.taken()) == 1200
    assert_nothing_lost(host, postgres)
    assert host.count("stream") == 1200


@pytest.mark.parametrize("is_noticed_by", ["the next run", pytest.param("a look", marks=pytest.mark.slow)])
def test_a_killed_crawl_is_noted_and_run_again_it_stores_what_an_undisturbed_one_does(
    is_noticed_by: str, host: Host
) -> None:
    arguments = {"pages": 40, "pause": 0.05}
    with host.crawling(*host.stream(**arguments)) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 200)
        crawl.send(signal.SIGKILL)
        assert crawl.end().status == -signal.SIGKILL
    [killed] = host.runs()
    assert killed.status == "running"
    at_the_kill = host.count("stream")
    assert at_the_kill < 800

    if is_noticed_by == "a look":
        assert host.report("spool", "status")["findings"] == []
    done = host.crawl(*host.stream(**arguments))
    assert done.status == 0, done.err
    assert (f"The run {killed.run_id} was killed" in done.err) is (is_noticed_by == "the next run")
    keys = [key for key, _content in host.versions("stream")]
    assert sorted(map(int, keys)) == list(range(800))
    assert [run.status for run in host.runs()] == ["killed", "finished"]
    jobs = dict(host.query("SELECT run_id, status FROM crawler_jobs"))
    assert jobs == {killed.run_id: "killed", host.run().run_id: "finished"}
    assert host.run().counts.unchanged == at_the_kill
    status = host.report("spool", "status")
    assert (status["findings"], status["sources"][0]["killed"]) == ([], 1)


def test_a_signal_before_the_first_page_ends_the_crawl_too(host: Host) -> None:
    with host.crawling(*host.stream(pages=1000, pause=0.1)) as crawl:
        crawl.wait_for_log("Spider opened")
        assert stop_in_time(crawl) in (0, 1), crawl.log.read_text()
    assert [run.status for run in host.runs()] in ([], ["interrupted"])


@pytest.mark.slow
def test_the_lock_of_a_killed_crawl_does_not_outlive_it(lonely_host: Host) -> None:
    with lonely_host.crawling(*lonely_host.stream(pages=1000, pause=0.1)) as crawl:
        crawl.wait_until(lambda: bool(lonely_host.waiting("stream")), seconds=10)
        crawl.send(signal.SIGKILL)
        crawl.end()
    assert lonely_host.scrapy("spool", "verify").status == 0


@pytest.mark.slow
@pytest.mark.parametrize("state", ["up", "frozen"])
def test_a_signal_ends_a_crawl_that_only_drains_what_earlier_ones_left(
    state: str, lonely_host: Host, database_url: str, postgres: PostgresServer
) -> None:
    make_tables(database_url)
    many_batches = {"CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "10"}
    before = Host(lonely_host.folder, settings=many_batches)
    assert before.crawl(*before.stream(pages=150)).status == 0
    host = Host(lonely_host.folder, database_url, settings=many_batches)
    with host.crawling(*host.stream(pages=0)) as crawl:
        crawl.wait_for_log("Closing spider (finished)")
        crawl.wait_until(lambda: host.count("stream") > 50)
        MISFORTUNES[state](postgres)
        assert stop_in_time(crawl) == 0
    assert host.run().status == "finished"
    assert host.waiting("stream")
    assert_nothing_lost(host, postgres)
