"""A site is down while it is crawled, or a crawl dies while it tries again: no page is given up for it."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from crawler.memory.failed_requests import FailedRequests
from demo.sites.process import control, requests_served, running_sites
from tests.faults.conftest import Form
from tests.support.crawls import TEST_SPIDERS, Host, LiveCrawl, make_tables
from tests.support.delivery import chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FORGETFUL = {"tests.e2e.components.ForgetsWhatItHandsOut": 0}
NEEDED = {"extensions.run_ledger.RunLedger": 0, "extensions.politeness.Politeness": 0}
SLOWLY = ("-s", "CONCURRENT_REQUESTS=2")
# A site that says nothing must not cost half a minute a try.
IMPATIENT = ("-s", "DOWNLOAD_TIMEOUT=1")


@dataclass
class Errands:
    """Pages of one site that no run finds again, what was sent for them, and what became of them."""

    host: Host
    proxy: TcpProxy
    site: str
    numbers: list[int] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}/"

    def arguments(self, pages: int = 0) -> tuple[str, ...]:
        """Return the command line of a run for so many further pages, and for what earlier ones left."""
        first = len(self.numbers)
        self.numbers += range(first, first + pages)
        paths = " ".join(f"?{number}" for number in range(first, first + pages))
        given = {"base_url": self.base_url, "paths": paths, "first": first}
        named = [text for name, value in given.items() for text in ("-a", f"{name}={value}")]
        return ("errands", *TEST_SPIDERS, *IMPATIENT, *named)

    def kept(self, reason: str | None = None) -> int:
        """Return how many requests wait in the ledger, or how many of them for a reason."""
        with closing(FailedRequests(self.host.state_dir / "failed.sqlite")) as ledger:
            return sum(reason in (None, row.reason) for row in ledger.requests("errands"))

    def make_due(self) -> None:
        """Do what ``scrapy failed retry`` does, without the price of a process."""
        with closing(FailedRequests(self.host.state_dir / "failed.sqlite")) as ledger:
            ledger.retry()

    def asked(self) -> int:
        """Return how often the site has been asked for a page since it was last asked to count anew."""
        return int(requests_served(self.site)["by_path"].get("/", 0))

    def reckon(self) -> tuple[int, int, int]:
        """Return how many pages are lost, stored twice and stored wrong."""
        rows = [data for (data,) in self.host.query("SELECT data FROM scraped_data")]
        stored = Counter(row["number"] for row in rows)
        wrong = [
            row
            for row in rows
            if (row["text"], row["note"], row["header"])
            != (f"errand {row['number']}", [row["number"]], str(row["number"]))
        ]
        lost = set(self.numbers) - set(stored)
        return len(lost), sum(number - 1 for number in stored.values()), len(wrong)


@pytest.fixture
def errands(tmp_path: Path, database_url: str) -> Iterator[Errands]:
    make_tables(database_url)
    with running_sites(scale="small") as sites:
        port = urlsplit(sites["books"]).port
        assert port is not None
        with TcpProxy(port) as proxy:
            yield Errands(Host(tmp_path, database_url), proxy, sites["books"])


def refused(errands: Errands) -> None:
    """Nobody listens."""
    errands.proxy.refuse()


def silent(errands: Errands) -> None:
    """Connections are taken, and nothing is ever said."""
    errands.proxy.be_deaf()


def with_fault(**fault: object) -> Callable[[Errands], None]:
    def begin(errands: Errands) -> None:
        control(errands.site, faults=[{"paths": ""} | fault])

    return begin


OUTAGES: dict[str, tuple[str, Callable[[Errands], None]]] = {
    "connections reset": ("connection_lost", with_fault(kind="drop")),
    "connections refused": ("connection_refused", refused),
    "silence": ("timeout", silent),
    "answers cut short": ("incomplete", with_fault(kind="partial")),
    "status 500": ("server_error", with_fault(kind="status", status=500)),
    "status 503": ("unavailable", with_fault(kind="status", status=503, retry_after="none")),
    "status 429": ("too_many_requests", with_fault(kind="status", status=429, retry_after="none")),
    "status 403": ("refused", with_fault(kind="status", status=403)),
    "challenges": ("challenged", with_fault(kind="challenge", status=200)),
}
"""What goes wrong with a site, by the reason that it is to be counted under."""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_site_that_was_down_for_a_whole_run_is_caught_up_with(
    errands: Errands, form: Form, fault_report: FaultReport
) -> None:
    chance = seeded("a site down for a whole run")
    outages = chance.sample(sorted(OUTAGES), form.pick(short=2, full=len(OUTAGES)))
    pages = form.pick(short=20, full=200)
    for outage in outages:
        reason, begin = OUTAGES[outage]
        begin(errands)
        done = errands.host.crawl(*errands.arguments(pages), seconds=300)
        assert done.status == 0, done.err
        assert done.err.count("errback of") == pages
        counts = errands.host.run().counts
        assert (counts.scraped, counts.blocked + counts.broken) == (0, pages), outage
        assert errands.kept(reason) == pages, outage
        errands.proxy.forward()
        control(errands.site, faults=[])
    assert errands.kept() == len(errands.numbers) == pages * len(outages)

    assert errands.host.report("failed", "retry")["due"] == len(errands.numbers)
    requests_served(errands.site, reset=True)
    assert errands.host.crawl(*errands.arguments(), seconds=300).status == 0
    lost, twice, wrong = errands.reckon()
    assert (lost, twice, wrong) == (0, 0, 0)
    assert errands.asked() == len(errands.numbers)
    assert errands.kept() == 0
    fault_report.trials.append(
        Trial(
            fault="failed requests: site down for a whole run",
            form=form.name,
            seed=chosen_seed(),
            faults=dict.fromkeys(outages, pages),
            items=len(errands.numbers),
            lost=lost,
            twice=twice,
            wrong=wrong,
            figures=f"{errands.asked()} requests to catch up with them",
        )
    )


def killed_while_it_tries_again(errands: Errands, crawl: LiveCrawl, chance: Random, pages: int) -> None:
    """Let the crawl get through some of the pages, and kill it at a moment nobody has chosen."""
    already = errands.asked()
    crawl.wait_until(lambda: errands.asked() > already)
    target = already + chance.randrange(1, pages)
    crawl.wait_until(lambda: errands.asked() >= target, seconds=60)
    time.sleep(chance.random() * 0.3)
    assert crawl.process.poll() is None
    crawl.send(signal.SIGKILL)
    assert crawl.end().status == -signal.SIGKILL


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_crawl_killed_while_it_tries_again_gives_up_nothing(
    errands: Errands, form: Form, fault_report: FaultReport
) -> None:
    chance = seeded("a crawl killed while it tries again")
    pages, kills = form.pick(short=30, full=300), form.pick(short=2, full=20)
    control(errands.site, faults=[{"kind": "drop"}])
    assert errands.host.crawl(*errands.arguments(pages), seconds=300).status == 0
    control(errands.site, faults=[{"kind": "delay", "delay_seconds": 0.1}])
    errands.make_due()
    requests_served(errands.site, reset=True)
    for _ in range(kills):
        with errands.host.crawling(*errands.arguments(), *SLOWLY) as crawl:
            killed_while_it_tries_again(errands, crawl, chance, pages=max(2, pages // kills))
    done = errands.host.crawl(*errands.arguments(), seconds=300)
    assert done.status == 0, done.err
    lost, twice, wrong = errands.reckon()
    assert (lost, twice, wrong) == (0, 0, 0)
    assert errands.kept() == 0
    again = errands.asked() - pages
    fault_report.trials.append(
        Trial(
            fault="failed requests: kill -9 while they are tried again",
            form=form.name,
            seed=chosen_seed(),
            faults={"kill -9": kills},
            items=pages,
            lost=lost,
            twice=twice,
            wrong=wrong,
            figures=f"{again} pages fetched twice",
        )
    )


def test_control_a_ledger_that_forgets_what_it_hands_out_loses_pages(
    errands: Errands, form: Form, fault_report: FaultReport
) -> None:
    chance = seeded("a ledger that forgets what it hands out")
    pages = 30
    control(errands.site, faults=[{"kind": "drop"}])
    assert errands.host.crawl(*errands.arguments(pages)).status == 0
    control(errands.site, faults=[{"kind": "delay", "delay_seconds": 0.1}])
    errands.make_due()
    requests_served(errands.site, reset=True)
    forgetful = ("-s", f"EXTENSIONS={json.dumps(NEEDED | FORGETFUL)}")
    with errands.host.crawling(*errands.arguments(), *SLOWLY, *forgetful) as crawl:
        killed_while_it_tries_again(errands, crawl, chance, pages=pages // 2)
    assert errands.host.crawl(*errands.arguments()).status == 0
    lost, _twice, _wrong = errands.reckon()
    assert lost > 0
    fault_report.controls.append(
        Control(
            fault="failed requests: kill -9 while they are tried again",
            safety_taken_off="a request is taken out when it is handed out",
            outcome=f"{lost} of {pages} pages lost after one kill",
        )
    )
