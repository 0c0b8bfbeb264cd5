"""Whole crawls on a machine whose wall clock jumps by up to a day, five times a second."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from crawler.commands.crawl import STOP_REACTOR_AFTER_SECONDS
from demo.postgres import PostgresServer
from tests.faults.conftest import Form
from tests.support.crawls import WITNESS, Host, LiveCrawl, with_components
from tests.support.delivery import chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.preload import compiled
from tests.support.reckoning import reckon
from tests.support.storm import Quota, Storm
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FAULT = "clock jumps of a day, whole crawls"
ITEMS = 20
# Between pages; and how long the items of one may take to be stored, of which they linger one second.
PAUSE_SECONDS = 4.0
PROMPT_SECONDS = 3.5


@pytest.fixture
def unclocked_host(host: Host, tmp_path: Path) -> Host:
    """A host that cannot tell the time."""
    jumps = {"LD_PRELOAD": str(compiled("clock_jumps", tmp_path)), "CLOCK_JUMPS_SEED": str(chosen_seed())}
    return Host(host.folder, host.database_url, settings=jumps)


def share_hours_off(host: Host) -> float:
    """Return the share of rows whose time is more than an hour from when they were stored."""
    [(share,)] = host.query(
        "SELECT avg((abs(extract(epoch FROM scraped_at - stored_at)) > 3600)::int) FROM scraped_data"
    )
    return float(share)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_storm_under_a_jumping_clock_loses_nothing_and_stores_nothing_twice(
    unclocked_host: Host,
    proxied_url: str,
    postgres: PostgresServer,
    postgres_proxy: TcpProxy,
    form: Form,
    fault_report: FaultReport,
) -> None:
    host = Host(unclocked_host.folder, proxied_url, settings=unclocked_host.settings)
    storm = Storm(host, postgres, postgres_proxy, seeded(FAULT))
    quota = Quota(60, 10, 40, 20_000) if form.is_full else Quota(4, 1, 2, 500)
    storm.rage(quota, at_most_seconds=form.pick(short=90, full=600))
    storm.settle()
    verdict = storm.verdict()
    hours_off = share_hours_off(host)
    assert hours_off > 0.8, "the clock did not jump"
    assert verdict.is_clean, (verdict, storm.thrown())
    assert storm.findings() == []
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            chosen_seed(),
            {"s of jumps, 5 each": round(storm.seconds), **storm.thrown()},
            verdict.items,
            verdict.lost,
            verdict.twice,
            verdict.wrong + verdict.misjudged,
            figures=f"{hours_off:.0%} of the rows are dated more than an hour off",
        )
    )


def enter(
    fault_report: FaultReport, form: Form, host: Host, thrown: dict[str, int], items: int, seconds: float
) -> None:
    """Enter a trial that cost none of the first ``items``; ``seconds`` is the longest that has a bound."""
    found = reckon(host, range(items))
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    fault_report.trials.append(
        Trial(FAULT, form.name, chosen_seed(), thrown, *found, longest_call_seconds=seconds)
    )


def has_taken(host: Host, items: int) -> bool:
    return len(host.taken()) >= items


def delays(host: Host, crawl: LiveCrawl, pages: int) -> Iterator[float]:
    """Return, page by page, how many seconds its items were taken but not stored; at most the pause."""
    for page in range(1, pages + 1):
        items = page * ITEMS
        crawl.wait_until(partial(has_taken, host, items))
        taken_at = time.monotonic()
        while host.count("stream") < items and time.monotonic() - taken_at < PROMPT_SECONDS:
            time.sleep(0.05)
        yield time.monotonic() - taken_at


def test_items_do_not_linger_longer_under_a_jumping_clock(
    unclocked_host: Host, form: Form, fault_report: FaultReport
) -> None:
    pages = form.pick(short=3, full=12)
    with unclocked_host.crawling(
        *unclocked_host.stream(pages=pages, items=ITEMS, pause=PAUSE_SECONDS)
    ) as crawl:
        longest = max(delays(unclocked_host, crawl, pages))
        done = crawl.end()
    assert done.status == 0, done.err
    assert longest < PROMPT_SECONDS
    assert share_hours_off(unclocked_host) > 0.5
    enter(fault_report, form, unclocked_host, {"pages that lingered": pages}, pages * ITEMS, longest)


def test_control_deadlines_by_the_wall_clock_leave_items_in_ram(
    unclocked_host: Host, fault_report: FaultReport
) -> None:
    pages = 15
    extension = with_components("EXTENSIONS", **{"saboteurs.WallClockDeadlines": 100})
    command = unclocked_host.stream(*extension, pages=pages, items=ITEMS, pause=PAUSE_SECONDS)
    with unclocked_host.crawling(*command) as crawl:
        waited = enumerate(delays(unclocked_host, crawl, pages), start=1)
        late = next((page for page, delay in waited if delay >= PROMPT_SECONDS), None)
    assert late is not None
    outcome = f"{PROMPT_SECONDS} s after page {late} its items were still in RAM only"
    fault_report.controls.append(Control(FAULT, "deadlines by the monotonic clock: by time.time()", outcome))


def test_a_stop_under_a_jumping_clock_ends_what_never_ends_after_its_nine_seconds(
    unclocked_host: Host, form: Form, fault_report: FaultReport
) -> None:
    """Scrapy's orderly stop has as long as ever, and the last resort is not needed."""
    slow = with_components("ITEM_PIPELINES", **WITNESS, **{"components.SlowAtClose": 100})
    with unclocked_host.crawling(*unclocked_host.stream(*slow, pages=1000, items=ITEMS, pause=0.05)) as crawl:
        crawl.wait_until(partial(has_taken, unclocked_host, 200))
        began = time.monotonic()
        crawl.send(signal.SIGTERM)
        done = crawl.end(15)
        seconds = time.monotonic() - began
    assert done.status == 0, done.err
    assert seconds > STOP_REACTOR_AFTER_SECONDS
    assert "Something of this crawl did not stop" not in done.err
    assert unclocked_host.run().status == "interrupted"
    items = len(unclocked_host.taken())
    enter(fault_report, form, unclocked_host, {"SIGTERM": 1}, items, seconds)
