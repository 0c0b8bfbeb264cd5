"""A storm of random faults over the crawls of one host, and what is true once it is over.

Crawls are killed at random moments while PostgreSQL is killed and connections to it break. A page that
has settled is never fetched again, as with a page memory: so an item that is missing in the end is lost,
and one that is there twice was stored twice.
"""

import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from demo.postgres import PostgresServer
from tests.e2e.spiders.stream import is_poison, text_of, value_of
from tests.support.crawls import Host, LiveCrawl, stream, with_components
from tests.support.nas import Nas
from tests.support.tcp_proxy import TcpProxy

LANES = 2
PAGES_OF_A_LANE = 100_000
ITEMS = 20
TEXT_BYTES = 200
POISON_EVERY = 997
# Twenty items a page: about 300 a second in each lane.
PACE = ("-s", "DOWNLOAD_DELAY=0.07")
# More than the longest life of a crawl needs.
PAGES_AHEAD = 150
# Short lives need short times: what takes seconds on a Pi must happen several times in one of them.
SETTINGS = {
    "CRAWLER_DELIVERY_LINGER_SECONDS": "0.3",
    "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "1",
    "CRAWLER_SPOOL_DRAIN_BATCHES_PER_SECOND": "1000",
    "CRAWLER_SPOOL_DRAIN_AT_CLOSE_SECONDS": "3",
    "CRAWLER_SPOOL_MAX_BYTES": "1M",
    "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "512K",
}
# When to kill: which phase to wait for, and how many seconds into it, at most.
AIMS = {"starting": 1.0, "delivering": 5.0, "draining": 0.05, "closing": 0.25}
WEIGHTS = (2, 6, 2, 2)
LONGEST_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.005


class Quota(NamedTuple):
    """How much is to be thrown, and how many items are to be safe before the storm may end."""

    kills: int
    server_kills: int
    tcp_faults: int
    items: int


class Verdict(NamedTuple):
    """What became of the items of every page, once all have settled and the spool is empty.

    ``stored`` is how many rows there are; ``drained`` of them came by way of the spool. ``poison`` is how
    many rows PostgreSQL had to refuse; ``misjudged`` are poison without a dead letter, or the reverse.
    """

    items: int
    lost: int
    twice: int
    wrong: int
    stored: int
    drained: int
    poison: int
    misjudged: int
    letters: int

    @property
    def is_clean(self) -> bool:
        """True if every item is stored once, as it should be, and the dead letters are the poison."""
        return not (self.lost or self.twice or self.wrong or self.misjudged)


class Lane:
    """One crawl after the other, each killed, over pages of their own."""

    def __init__(
        self, host: Host, number: int, chance: random.Random, memory: str, extensions: Sequence[str]
    ) -> None:
        """Given the host, which of its lanes this is, chance and components, return a lane at peace."""
        self.first_page = number * PAGES_OF_A_LANE
        self.pages = 0
        self.kills: Counter[str] = Counter()
        self.found_spool_full = 0
        self._host = host
        self._chance = chance
        self._memory = host.folder / f"page-memory-{number}"
        self._phase = host.folder / f"phase-{number}"
        self._components = (
            *("-s", f"PAGE_MEMORY={self._memory}", "-s", f"PHASES={self._phase}"),
            *with_components("SPIDER_MIDDLEWARES", **{memory: 500}),
            *with_components("EXTENSIONS", **dict.fromkeys(("components.Phases", *extensions), 100)),
        )

    def rage(self, over: threading.Event) -> None:
        """Start one crawl after the other, and kill it, until it is over."""
        while not over.is_set():
            self._crawl_once(over)

    def settle(self) -> None:
        """Crawl undisturbed until every page has settled."""
        done = self._host.crawl(*self._command(self.pages), seconds=120)
        assert done.status == 0, done.err
        assert self.seen() == set(self._pages()), done.err

    def seen(self) -> set[int]:
        """Return the pages that no later crawl will fetch."""
        notes = self._memory.read_text().split() if self._memory.exists() else []
        return {int(url.removeprefix("data:,")) for url in notes}

    def numbers(self) -> range:
        """Return the numbers of the items of all its pages."""
        pages = self._pages()
        return range(pages.start * ITEMS, pages.stop * ITEMS)

    def _pages(self) -> range:
        return range(self.first_page, self.first_page + self.pages)

    def _crawl_once(self, over: threading.Event) -> None:
        """Start a crawl and kill it, unless it ends before that."""
        [aim] = self._chance.choices(list(AIMS), WEIGHTS)
        # One that is to be met while closing has little to do.
        pages = self._pages_with(3 if aim == "closing" else PAGES_AHEAD)
        self._phase.write_text("starting")
        with self._host.crawling(*self._command(pages), *PACE) as crawl:
            self._wait_for(aim, crawl, over)
            over.wait(self._chance.uniform(0.0, AIMS[aim]))
            crawl.send(signal.SIGKILL)
            done = crawl.end()
        self.found_spool_full += "Items wait in RAM and the crawl waits for them" in done.err
        was_killed = done.status == -signal.SIGKILL
        assert was_killed or done.status == 0, done.err
        self.kills[self._phase.read_text().strip()] += was_killed

    def _wait_for(self, phase: str, crawl: LiveCrawl, over: threading.Event) -> None:
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while self._phase.read_text().strip() != phase and time.monotonic() < deadline:
            if crawl.process.poll() is not None or over.wait(POLL_SECONDS):
                return

    def _command(self, pages: int) -> tuple[str, ...]:
        return stream(
            *self._components,
            first_page=self.first_page,
            pages=pages,
            items=ITEMS,
            text_bytes=TEXT_BYTES,
            poison_every=POISON_EVERY,
        )

    def _pages_with(self, unseen: int) -> int:
        """Return how many pages the site must have for this many of them to be new to the memory."""
        seen = self.seen()
        new = (number for number in itertools.count() if self.first_page + number not in seen)
        pages = next(itertools.islice(new, unseen, None))
        self.pages = max(self.pages, pages)
        return pages


class Storm:
    """Crawls of ``host``, whose database is reached by way of ``proxy``, and what is thrown at them."""

    def __init__(
        self,
        host: Host,
        server: PostgresServer,
        proxy: TcpProxy,
        chance: random.Random,
        *,
        kinds: Collection[str] = (),
        memory: str = "components.PageMemory",
        extensions: Sequence[str] = (),
    ) -> None:
        """Given who suffers, chance and the kinds of TCP faults (nothing said: all), return a storm.

        Components are named as in tests/e2e.
        """
        self._host = Host(host.folder, host.database_url, host.name, {**SETTINGS, **host.settings})
        self.nas = Nas(server, proxy, random.Random(chance.random()), kinds)
        self.lanes = [
            Lane(self._host, number, random.Random(chance.random()), memory, extensions)
            for number in range(LANES)
        ]
        self.seconds = 0.0

    def rage(self, quota: Quota, *, at_most_seconds: float) -> None:
        """Throw it all; return when the quota is met, fail if that takes too long."""
        began = time.monotonic()
        over = threading.Event()
        with self._host.spool() as spool, ThreadPoolExecutor(LANES + 1) as pool:
            actors = [pool.submit(self.nas.rage, quota.server_kills, quota.tcp_faults, over, spool)]
            actors += [pool.submit(lane.rage, over) for lane in self.lanes]
            try:
                while not self._is_met(quota) and not any(actor.done() for actor in actors):
                    assert time.monotonic() - began < at_most_seconds, f"{quota} unmet: {self.thrown()}"
                    time.sleep(0.2)
            finally:
                over.set()
            for actor in actors:
                actor.result()
        self.seconds = time.monotonic() - began

    def _is_met(self, quota: Quota) -> bool:
        return (
            self.kills().total() >= quota.kills
            and self.nas.server_kills >= quota.server_kills
            and self.nas.tcp_faults.total() >= quota.tcp_faults
            and sum(len(lane.seen()) for lane in self.lanes) * ITEMS >= quota.items
        )

    def kills(self) -> Counter[str]:
        """Return how many crawls were killed, by what they were doing."""
        return sum((lane.kills for lane in self.lanes), Counter())

    def thrown(self) -> dict[str, int]:
        """Return what was thrown, by kind."""
        kills = {f"kills while {phase}": number for phase, number in self.kills().items()}
        return {**kills, "PostgreSQL kills": self.nas.server_kills, **self.nas.tcp_faults}

    @property
    def times_full(self) -> int:
        """In how many crawls an item had to wait in RAM because the spool was full."""
        return sum(lane.found_spool_full for lane in self.lanes)

    @property
    def fair_share(self) -> float:
        """The share of the time in which PostgreSQL was up and no connection was tampered with."""
        return 1.0 - self.nas.disturbed_seconds / self.seconds

    # -- once it is over -----------------------------------------------------------------------

    def settle(self) -> None:
        """Crawl undisturbed until every page has settled, then empty the spool."""
        for lane in self.lanes:
            lane.settle()
        assert self._host.report("spool", "drain")["waiting"] == 0

    def verdict(self) -> Verdict:
        """Return what became of every item of every page."""
        rows = self._host.query(
            "SELECT item_key, data->>'value', data->>'text' FROM scraped_data WHERE source = 'stream'"
        )
        numbers = [number for lane in self.lanes for number in lane.numbers()]
        poison = {number for number in numbers if is_poison(number, POISON_EVERY)}
        good = set(numbers) - poison
        stored = Counter(int(key) for key, _value, _text in rows)
        letters = Counter(int(letter.key) for letter in self._host.dead_letters())
        return Verdict(
            items=len(numbers),
            lost=len(good - stored.keys()),
            twice=sum(number > 1 for number in stored.values()),
            wrong=sum(not _is_right(*row) for row in rows) + len(stored.keys() - good),
            stored=len(rows),
            drained=self._host.spool_account("stream").stored,
            poison=len(poison),
            misjudged=len(poison ^ letters.keys()),
            letters=letters.total(),
        )

    def findings(self) -> list[str]:
        """Return what the account, the spool's own check and the table of runs have against it."""
        told = dict(self._host.query("SELECT run_id, status FROM crawler_jobs"))
        return [
            *self._host.report("spool", "status")["findings"],
            *self._host.report("spool", "verify")["findings"],
            *(f"{run.run_id} is missing" for run in self._host.runs() if run.run_id not in told),
            *(f"{run_id} seems to run" for run_id, status in told.items() if status == "running"),
        ]


def _is_right(key: str, value: str, text: str) -> bool:
    number = int(key)
    return (value, text) == (value_of(number), text_of(number, TEXT_BYTES))
