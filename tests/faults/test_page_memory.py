"""A page counts as seen only when its items are safe: what one run failed to store, the next one does."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from crawler.delivery.spool import Spool
from crawler.exceptions import CardFull
from demo.postgres import PostgresServer
from demo.sites.process import running_sites
from demo.sites.server import SCALES
from tests.e2e.spiders.shelf import luck_of
from tests.faults.conftest import Form
from tests.support.crawls import POLL_SECONDS, Host
from tests.support.delivery import COLUMNS, SHOP, chosen_seed, observation, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.shelf import MISHAPS, Shelf, Visits, instead_of, seen_by, with_pipeline

pytestmark = pytest.mark.e2e

BOOKS = SCALES["small"].books
ITEMS = 2 * BOOKS
SOURCES = {"DeltaFetch": "shelf_never", "conditional GET": "shelf"}
CONTROLS = {
    "DeltaFetch": (
        "scrapy-deltafetch as it comes, made to load",
        instead_of(
            "SPIDER_MIDDLEWARES",
            "crawler.middlewares.deltafetch.DeltaFetch",
            "tests.e2e.mishaps.PlainDeltaFetch",
        ),
    ),
    "conditional GET": (
        "pages are remembered when their answer arrives",
        instead_of(
            "DOWNLOADER_MIDDLEWARES",
            "crawler.middlewares.conditional.ConditionalGet",
            "tests.e2e.mishaps.HastyConditionalGet",
        ),
    ),
}
# Nothing is delivered before the run ends, so that all of it is in RAM when it is killed.
ALL_IN_RAM = {"CRAWLER_DELIVERY_LINGER_SECONDS": "60", "CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "10000"}
NO_ROOM = {
    "CRAWLER_SPOOL_MAX_BYTES": "1M",
    "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "256K",
    "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "1",
}


# -- what befalls the first run ----------------------------------------------------------------


@dataclass
class Stage:
    """A host and its PostgreSQL, a bookshop, and what is to be had there: the content of each item."""

    host: Host
    postgres: PostgresServer
    base_url: str
    everything: dict[str, str]

    def shelf(self, way: str, **settings: str) -> Shelf:
        """Return the source that is revisited this way, on the host with these settings."""
        host = Host(self.host.folder, self.host.database_url, settings=settings)
        return Shelf(host, self.base_url, SOURCES[way])


Misfortune = Callable[[Stage, str, tuple[str, ...]], None]


def kill_with_everything_in_ram(stage: Stage, way: str, options: tuple[str, ...]) -> None:
    """SIGKILL once every page has been parsed and nothing of it delivered."""
    shelf = stage.shelf(way, **ALL_IN_RAM)
    # While another component takes its time to close, what is held has not been flushed yet.
    slow = with_pipeline("tests.e2e.components.SlowAtClose")
    with shelf.host.crawling(*shelf.command(*options, *slow)) as crawl:
        crawl.wait_for_log("Closing spider (finished)")
        crawl.send(signal.SIGKILL)
        assert crawl.end().status == -signal.SIGKILL


def take_both_sinks_away(stage: Stage, way: str, options: tuple[str, ...]) -> None:
    """PostgreSQL is down and the spool has no room, until the crawl is told to stop."""
    shelf = stage.shelf(way, **NO_ROOM)
    with shelf.host.spool() as spool:
        fill(spool)
    stage.postgres.kill()
    with shelf.counting(), shelf.host.crawling(*shelf.command(*options)) as crawl:
        crawl.wait_for_log("Items wait in RAM and the crawl waits for them")
        crawl.wait_until(lambda: seen_by(shelf.base_url).books > 0)
        # Their callbacks yield, and what they yield has nowhere to go.
        time.sleep(1.0)
        crawl.send(signal.SIGTERM)
        crawl.end()
    stage.postgres.start()
    counts = shelf.host.run().counts
    assert counts.stored == counts.spooled == 0


def fill(spool: Spool) -> None:
    """Leave no room in the spool for another batch, however small."""
    chance = seeded("a full spool")
    for size in (100_000, 10_000, 1000, 1):
        with suppress(CardFull):
            while True:
                filler = observation(chance.randbytes(8).hex(), chance.randbytes(size).hex(), 0)
                spool.append(SHOP, COLUMNS, [filler])


def let_callbacks_and_pipelines_fail(stage: Stage, way: str, options: tuple[str, ...]) -> None:
    """Of five books one has a callback that raises, one a callback that raises half-way, one an item that
    is dropped, and one an item at which a pipeline raises."""
    done, _visits = stage.shelf(way, **MISHAPS).crawl(*with_pipeline("tests.e2e.mishaps.Mishaps"), *options)
    assert done.status == 1, done.err


MISFORTUNES: dict[str, Misfortune] = {
    "sink down for all": take_both_sinks_away,
    "callback bug, half page, drop, failing pipeline": let_callbacks_and_pipelines_fail,
    "kill -9": kill_with_everything_in_ram,
}
QUICK = ("conditional GET", "callback bug, half page, drop, failing pipeline")
CASES = [
    pytest.param(way, misfortune, marks=[] if (way, misfortune) == QUICK else pytest.mark.slow)
    for way in SOURCES
    for misfortune in MISFORTUNES
]


def safe_items(shelf: Shelf) -> set[str]:
    return {key for key, _content in shelf.rows()}


class Verdict(NamedTuple):
    """How many items are not as they would be had nothing befallen the crawls."""

    lost: int
    twice: int
    wrong: int


def verdict(shelf: Shelf, everything: Mapping[str, str]) -> Verdict:
    rows = shelf.rows()
    stored = dict(rows)
    return Verdict(
        lost=len(everything.keys() - stored.keys()),
        twice=len(rows) - len(stored),
        wrong=sum(content != everything.get(key) for key, content in rows),
    )


@pytest.fixture
def stage(host: Host, sites: dict[str, str], postgres: PostgresServer) -> Stage:
    """What there is to be had is found by a run that nothing befell."""
    undisturbed = Shelf(host, sites["books"], "shelf_always")
    assert undisturbed.crawl()[0].status == 0
    everything = dict(undisturbed.rows())
    assert len(everything) == ITEMS
    return Stage(host, postgres, sites["books"], everything)


@pytest.mark.parametrize(("way", "misfortune"), CASES)
def test_the_second_run_delivers_what_is_missing_and_the_third_fetches_nothing(
    way: str, misfortune: str, stage: Stage, form: Form, fault_report: FaultReport
) -> None:
    MISFORTUNES[misfortune](stage, way, ())
    shelf = stage.shelf(way)
    unfinished = {key.removesuffix("-stock") for key in stage.everything.keys() - safe_items(shelf)}
    if misfortune.startswith("callback"):
        assert {luck_of(upc) for upc in unfinished} == {0, 1, 2, 3}
    else:
        assert len(unfinished) == BOOKS

    done, visits = shelf.crawl()
    assert done.status == 0, done.err
    assert verdict(shelf, stage.everything) == (0, 0, 0)
    second = in_full(way, visits)
    assert second == len(unfinished)

    done, visits = shelf.crawl()
    assert done.status == 0, done.err
    third = in_full(way, visits)
    assert third == 0
    found = verdict(shelf, stage.everything)
    assert found == (0, 0, 0)
    fault_report.trials.append(
        Trial(
            fault=f"{way} safety: {misfortune}",
            form=form.name,
            seed=None,
            faults={"pages left unfinished": len(unfinished)},
            items=ITEMS,
            lost=found.lost,
            twice=found.twice,
            wrong=found.wrong,
            figures=f"run 2 fetched {second} of {BOOKS} pages in full, run 3 {third}",
        )
    )


def in_full(way: str, visits: Visits) -> int:
    """Return how many pages of books came whole. With DeltaFetch each that is asked for does."""
    return visits.books - visits.not_modified if way == "conditional GET" else visits.books


@pytest.mark.slow
@pytest.mark.parametrize("misfortune", MISFORTUNES)
@pytest.mark.parametrize("way", SOURCES)
def test_a_memory_that_does_not_wait_for_the_items_loses_them(
    way: str, misfortune: str, stage: Stage, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The negative control: the same misfortunes, and pages that are marked too soon."""
    safety, component = CONTROLS[way]
    options = (*component, "-s", f"DELTAFETCH_DIR={tmp_path / 'pages'}")
    MISFORTUNES[misfortune](stage, way, options)
    shelf = stage.shelf(way)
    before = safe_items(shelf)
    done, visits = shelf.crawl(*options)
    assert done.status == 0, done.err
    missing, lost = stage.everything.keys() - before, stage.everything.keys() - safe_items(shelf)
    if misfortune.startswith("sink"):
        # The crawl waited, and was stopped before it had come to all of them.
        assert lost
    elif misfortune.startswith("callback") and way == "DeltaFetch":
        # It marks a page with its first item: those that yielded none are fetched again.
        assert lost == {key for key in missing if luck_of(key) != 0}
    else:
        assert lost == missing
    fault_report.controls.append(
        Control(
            fault=f"{way} safety: {misfortune}",
            safety_taken_off=safety,
            outcome=f"{len(lost)} of {len(missing)} missing items are never delivered; run 2 asked for "
            f"{visits.books} pages",
        )
    )


# -- killed again and again --------------------------------------------------------------------


@contextmanager
def bookshop(form: Form, small: str) -> Iterator[tuple[str, int]]:
    """Yield the address of a shop and how many books it has."""
    with ExitStack() as stack:
        if form.is_full:
            sites = stack.enter_context(running_sites(scale="full"))
            yield sites["books"], SCALES["full"].books
        else:
            yield small, BOOKS


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", SOURCES)
def test_killed_at_random_points_and_run_to_the_end_it_stores_what_an_undisturbed_run_does(
    way: str, host: Host, sites: dict[str, str], form: Form, fault_report: FaultReport
) -> None:
    """Each history is run until a run comes to its end; there are as many as it takes for the kills."""
    chance = seeded("kills of a crawl with a memory")
    wanted = form.pick(short=2, full=20)
    kills = histories = whole = 0
    found = Verdict(0, 0, 0)
    with bookshop(form, sites["books"]) as (base_url, books):
        undisturbed = Shelf(host, base_url, "shelf_always")
        assert undisturbed.crawl()[0].status == 0
        everything = dict(undisturbed.rows())
        while kills < wanted:
            histories += 1
            folder = host.folder / f"history-{histories}"
            shelf = Shelf(Host(folder, host.database_url), base_url, SOURCES[way])
            shelf.host.query("DELETE FROM scraped_data WHERE source = %s", shelf.source)
            with shelf.counting() as visits:
                # Of the runs that know nothing yet, one in three comes to its end.
                while was_killed(shelf, after_pages=chance.randrange(3 * books // 2)):
                    kills += 1
            found = Verdict(*map(sum, zip(found, verdict(shelf, everything), strict=True)))
            assert shelf.host.run().status == "finished"
            whole += in_full(way, visits[0])
            _done, last = shelf.crawl()
            assert in_full(way, last) == 0
            assert shelf.host.run().counts.scraped == 0
    assert found == (0, 0, 0)
    again = whole - histories * books
    assert again >= 0
    fault_report.trials.append(
        Trial(
            fault=f"{way} safety: kill -9 at random points of a crawl",
            form=form.name,
            seed=chosen_seed(),
            faults={"kill -9": kills},
            items=2 * books * histories,
            lost=found.lost,
            twice=found.twice,
            wrong=found.wrong,
            figures=f"{histories} crawls of {books} pages to their end; {again} pages fetched in full once "
            f"more, {again / kills:.0f} for each kill",
        )
    )


def was_killed(shelf: Shelf, *, after_pages: int) -> bool:
    """Crawl; kill the crawl once it has asked for so many books. Return False if it came to its end."""
    before = seen_by(shelf.base_url).books
    with shelf.host.crawling(*shelf.command()) as crawl:
        while crawl.process.poll() is None and seen_by(shelf.base_url).books - before <= after_pages:
            time.sleep(POLL_SECONDS)
        crawl.process.kill()
        done = crawl.end()
    assert done.status in (0, -signal.SIGKILL), done.err
    return done.status != 0
