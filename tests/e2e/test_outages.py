"""Crawls through outages of PostgreSQL: the same rows as on a good day, a bounded process, a spared card."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.postgres import PostgresServer
from tests.support.crawls import MEBIBYTE, TEST_SPIDERS, Host, make_tables

pytestmark = pytest.mark.e2e

PAGES, ITEMS = 60, 20
EVERYTHING = list(range(PAGES * ITEMS))


def stored_numbers(host: Host) -> list[int]:
    """Return the number of each row: with repeats, if a version was stored twice."""
    assert host.report("spool", "drain")["waiting"] == 0
    return sorted(int(key) for key, _content in host.versions("stream"))


@pytest.mark.parametrize(
    "outage",
    [
        "killed in the middle",
        pytest.param("frozen in the middle", marks=pytest.mark.slow),
        pytest.param("away from the start", marks=pytest.mark.slow),
    ],
)
def test_an_outage_leaves_the_rows_of_a_good_day(outage: str, host: Host, postgres: PostgresServer) -> None:
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "2"})
    if outage == "away from the start":
        postgres.stop()
    with host.crawling(*host.stream(pages=PAGES, items=ITEMS, pause=0.05)) as crawl:
        if outage != "away from the start":
            crawl.wait_until(lambda: host.count("stream") > 200)
            (postgres.kill if outage.startswith("killed") else postgres.freeze)()
        crawl.wait_for_log("PostgreSQL does not take items; they go to the spool")
        crawl.wait_until(lambda: len(host.waiting("stream")) > 100)
        postgres.thaw()
        postgres.start()
        done = crawl.end()
    assert done.status == 0, done.err
    counts = host.run().counts
    assert (counts.scraped, counts.lost) == (len(EVERYTHING), 0)
    assert counts.spooled > 100
    assert stored_numbers(host) == EVERYTHING
    assert host.report("spool", "status")["findings"] == []
    assert host.query("SELECT status, records_processed FROM crawler_jobs") == [("finished", len(EVERYTHING))]
    print(f"{outage}: {counts.stored} stored at once, {counts.spooled} by way of the spool")


@pytest.mark.slow
def test_a_crawl_goes_back_to_postgresql_by_itself_and_empties_the_spool(
    host: Host, postgres: PostgresServer
) -> None:
    postgres.kill()
    with host.crawling(*host.stream(pages=1000, items=ITEMS, pause=0.05)) as crawl:
        crawl.wait_until(lambda: len(host.waiting("stream")) > 100)
        postgres.start()
        crawl.wait_for_log("PostgreSQL takes items again")
        crawl.wait_until(lambda: host.count("stream") > 200)
        crawl.wait_until(lambda: not host.waiting("stream"))


def pair(tmp_path: Path, database_url: str, *, hosts: tuple[str, str]) -> tuple[Host, Host]:
    """Return two hosts; with the same name they are one, with one card."""
    first, second = (Host(tmp_path / name, database_url, name=name) for name in hosts)
    return first, second


@pytest.mark.slow
def test_two_hosts_on_one_source_store_no_version_twice(
    tmp_path: Path, database_url: str, postgres: PostgresServer
) -> None:
    make_tables(database_url)
    first, second = pair(tmp_path, database_url, hosts=("pi-1", "pi-2"))
    editions = (1, 2, 1)
    for edition in editions:
        arguments = {"pages": PAGES, "items": ITEMS, "pause": 0.02, "edition": edition}
        with (
            first.crawling(*first.stream(**arguments)) as one,
            second.crawling(*second.stream(**arguments)) as other,
        ):
            if edition == 2:
                one.wait_until(lambda: len(first.taken()) > len(EVERYTHING) + 300)
                postgres.kill()
                one.wait_until(lambda: len(first.taken()) > len(EVERYTHING) + 600)
                postgres.start()
            assert one.end().status == other.end().status == 0
        for host in (first, second):
            assert host.report("spool", "drain")["waiting"] == 0
    check_neighbours_differ(first)
    keys = Counter(int(key) for key, _content in first.versions("stream"))
    assert sorted(keys) == EVERYTHING
    assert set(keys.values()) == {3}
    hosts = Counter(name for (name,) in first.query("SELECT host FROM scraped_data"))
    # Which of them comes first is chance, and may be the same one throughout.
    assert set(hosts) <= {"pi-1", "pi-2"}
    assert sum(host.run().counts.scraped for host in (first, second)) == 2 * len(EVERYTHING)
    print(f"rows by host: {dict(hosts)}; {sum(hosts.values())} rows for {6 * len(EVERYTHING)} items")


@pytest.mark.slow
def test_two_crawls_of_one_host_share_its_spool(host: Host, postgres: PostgresServer) -> None:
    postgres.kill()
    arguments = {"pages": PAGES, "items": ITEMS, "pause": 0.02}
    with (
        host.crawling(*host.stream(**arguments)) as one,
        host.crawling(*host.stream(**arguments)) as other,
    ):
        assert one.end().status == other.end().status == 0
    assert [run.counts.spooled for run in host.runs()] == [len(EVERYTHING)] * 2
    assert Counter(Counter(host.waiting("stream")).values()) == {2: len(EVERYTHING)}
    postgres.start()
    assert stored_numbers(host) == EVERYTHING
    check_neighbours_differ(host)
    [source] = host.report("spool", "status")["sources"]
    assert (source["stored"], source["unchanged"]) == (len(EVERYTHING), len(EVERYTHING))
    assert sorted(job[0] for job in host.query("SELECT status FROM crawler_jobs")) == ["finished"] * 2


def check_neighbours_differ(host: Host) -> None:
    """No version of a thing is stored next to an equal one."""
    twice = host.query(
        "SELECT item_key FROM (SELECT item_key, content_hash = lag(content_hash) OVER"
        " (PARTITION BY key_hash ORDER BY scraped_at, content_hash) AS is_repeat"
        " FROM scraped_data) AS history WHERE is_repeat"
    )
    assert twice == []


@pytest.mark.parametrize("with_postgres", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_crawl_spares_the_card_while_postgresql_is_up(
    with_postgres: bool, host: Host, postgres: PostgresServer
) -> None:
    """Without PostgreSQL, the negative control, the payload does reach the card."""
    host = Host(host.folder, host.database_url, settings={"CRAWLER_SPOOL_MAX_BYTES": "64M"})
    # The files are made, and reserved to their cap, by the first crawl.
    assert host.crawl(*host.stream(pages=1)).status == 0
    if not with_postgres:
        postgres.kill()
    items, item_bytes = 2000, 10_000
    payload = items * item_bytes
    arguments = arguments_of(pages=items // 20, text_bytes=item_bytes)
    # The witness writes too, so this crawl does without one.
    with host.crawling("stream", *TEST_SPIDERS, *arguments) as crawl, Watch(crawl.written_bytes) as card:
        assert crawl.end().status == 0
        log_bytes = crawl.log.stat().st_size
    written = max(0, card.last - log_bytes)
    print(f"{written} bytes written to the card for {payload} bytes of items: {written / payload:.2%}")
    assert (written < payload // 100) is with_postgres


def arguments_of(**arguments: object) -> tuple[str, ...]:
    return tuple(text for name, value in arguments.items() for text in ("-a", f"{name}={value}"))


class Watch:
    """Asks for a figure of a process every few milliseconds, until it has ended."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure = figure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.last = 0
        self.highest = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self.last = self._figure()
            except (OSError, KeyError, ValueError, IndexError):
                return
            self.highest = max(self.highest, self.last)


@pytest.mark.slow
@pytest.mark.parametrize("items", [20, 1000])
def test_a_blocked_sink_holds_the_crawl_back_in_bounded_memory_until_it_opens(
    items: int, host: Host, postgres: PostgresServer
) -> None:
    """PostgreSQL frozen and the spool full: nothing can leave RAM, so nothing more may come in."""
    tight = {
        "CRAWLER_SPOOL_MAX_BYTES": "1M",
        "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "256K",
        "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "2",
    }
    host = Host(host.folder, host.database_url, settings=tight)
    things = 40_000
    arguments = host.stream(pages=things // items, items=items, text_bytes=400)
    with host.crawling(*arguments) as crawl, Watch(crawl.resident_bytes) as memory:
        crawl.wait_until(lambda: host.count("stream") > 500)
        postgres.freeze()
        crawl.wait_for_log("Items wait in RAM and the crawl waits for them", seconds=30)
        blocked_at = len(host.taken())
        time.sleep(6.0)
        held = len(host.taken())
        assert held - blocked_at <= 500, "the crawl went on"
        assert held < things
        postgres.thaw()
        done = crawl.end(120)
    assert done.status == 0, done.err
    assert host.run().counts.scraped == things
    assert stored_numbers(host) == list(range(things))
    print(f"{items} items a page: blocked at {held} items, {memory.highest / MEBIBYTE:.0f} MiB at most")
    assert memory.highest < 150 * MEBIBYTE
