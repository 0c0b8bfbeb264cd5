"""PostgreSQL frozen and the spool full: nothing can leave RAM, so nothing more may come in."""

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.postgres import PostgresServer
from tests.faults.conftest import Form
from tests.support.crawls import MEBIBYTE, Host, LiveCrawl, with_components
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.reckoning import reckon
from tests.support.watch import Watch

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FAULT = "blocked sink: PostgreSQL frozen, spool full"
RESIDENT_LIMIT_BYTES = 150 * MEBIBYTE
TEXT_BYTES = 400
THINGS = 40_000
# The queue's 2,000, and what 300 kB of responses (counted as 1 kB at least) yield, 16 items at a time.
HELD_LIMIT = 2_000 + 300_000 // 1024 * 16
SETTINGS = {
    "CRAWLER_SPOOL_MAX_BYTES": "1M",
    "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "256K",
    "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "2",
}
# As Scrapy comes, with a pipeline that takes what it is given.
SCRAPYS_BOUNDS = ("-s", "SCRAPER_SLOT_MAX_ACTIVE_SIZE=5000000", "-s", "CONCURRENT_ITEMS=100")
NO_BOUND_OF_THE_QUEUE = {
    "CRAWLER_DELIVERY_QUEUE_MAX_ITEMS": "1000000",
    "CRAWLER_DELIVERY_QUEUE_MAX_BYTES": "1G",
}


class Held(NamedTuple):
    """The most items that were in RAM at one time: in delivery's queue, and on their way to it."""

    queued: int
    on_their_way: int


def watched(host: Host, *options: str, **arguments: object) -> tuple[str, ...]:
    """Return the command line of a crawl that notes how much it holds."""
    extension = with_components("EXTENSIONS", **{"components.Held": 100})
    return host.stream(
        "-s", f"HELD={held_file(host)}", *extension, *options, text_bytes=TEXT_BYTES, **arguments
    )


def held_file(host: Host) -> Path:
    return host.folder / "held"


def most_held(host: Host) -> Held:
    queued, on_their_way = held_file(host).read_text().split()
    return Held(int(queued), int(on_their_way))


def wait_until_it_stands_still(host: Host, crawl: LiveCrawl) -> int:
    """Return how many items delivery has taken once it takes no more."""
    crawl.wait_for_log("Items wait in RAM and the crawl waits for them", seconds=60)
    before = -1
    while before != len(host.taken()):
        before = len(host.taken())
        time.sleep(2.0)
    return before


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("items", "full_seconds"), [(20, 15), (1000, 120)])
def test_a_blocked_sink_holds_the_crawl_back_in_bounded_memory_until_it_opens(
    items: int,
    full_seconds: int,
    host: Host,
    postgres: PostgresServer,
    form: Form,
    fault_report: FaultReport,
) -> None:
    host = Host(host.folder, host.database_url, settings=SETTINGS)
    blocked_seconds = form.pick(short=3, full=full_seconds)
    command = watched(host, pages=THINGS // items, items=items)
    with host.crawling(*command) as crawl, Watch(crawl.resident_bytes) as memory:
        crawl.wait_until(lambda: host.count("stream") > 500)
        postgres.freeze()
        taken = wait_until_it_stands_still(host, crawl)
        time.sleep(blocked_seconds)
        assert len(host.taken()) == taken < THINGS
        postgres.thaw()
        thawed_at = time.monotonic()
        done = crawl.end(120)
        recovery_seconds = time.monotonic() - thawed_at
    assert done.status == 0, done.err
    assert host.run().counts.scraped == THINGS
    held = most_held(host)
    assert held.queued <= 2_000
    assert sum(held) <= HELD_LIMIT
    assert memory.highest < RESIDENT_LIMIT_BYTES

    found = reckon(host, range(THINGS))
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    figures = (
        f"at most {memory.highest / MEBIBYTE:.0f} MiB and {held.queued:,} + {held.on_their_way:,} items in "
        f"RAM; all done {recovery_seconds:.0f} s after the thaw"
    )
    thrown = {f"{blocked_seconds} s, {items} items a page": 1}
    fault_report.trials.append(Trial(FAULT, form.name, None, thrown, *found, figures=figures))


def test_control_without_bounds_the_crawl_goes_on_and_fills_the_memory(
    host: Host, postgres: PostgresServer, fault_report: FaultReport
) -> None:
    host = Host(host.folder, host.database_url, settings={**SETTINGS, **NO_BOUND_OF_THE_QUEUE})
    command = watched(host, *SCRAPYS_BOUNDS, pages=1_000, items=1_000)
    with host.crawling(*command) as crawl, Watch(crawl.resident_bytes) as memory:
        crawl.wait_until(lambda: host.count("stream") > 500)
        postgres.freeze()
        crawl.wait_until(
            lambda: memory.highest > RESIDENT_LIMIT_BYTES and sum(most_held(host)) > 10 * HELD_LIMIT,
            seconds=100,
        )
    held = most_held(host)
    outcome = (
        f"stopped at {memory.highest / MEBIBYTE:.0f} MiB and {held.queued:,} + {held.on_their_way:,} items, "
        "still growing"
    )
    safety = "the bounds: Scrapy's own, and none of the queue"
    fault_report.controls.append(Control(FAULT, safety, outcome))
