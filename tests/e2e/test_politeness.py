"""How often a site is asked, by its own log: never more often than it, or the operator, has said."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from demo.sites.process import control, requests_served
from tests.support.crawls import REPOSITORY, TEST_SPIDERS, Done, Host

pytestmark = pytest.mark.e2e

# Scrapy keeps to its concurrency only where there is a delay, however short.
ONE_BY_ONE = ("-s", "CONCURRENT_REQUESTS_PER_DOMAIN=1", "-s", "DOWNLOAD_DELAY=0.05")
# As if its delay were the business of AutoThrottle alone.
THROTTLED = ("-s", "AUTOTHROTTLE_ENABLED=1", "-s", "AUTOTHROTTLE_START_DELAY=0")
PAGES = 5


def errands(base_url: str, pages: int = PAGES, **arguments: object) -> tuple[str, ...]:
    """Return the arguments of a run for so many pages, which the local site takes for one."""
    given = {"base_url": base_url, "paths": " ".join(f"?{number}" for number in range(pages))} | arguments
    return tuple(text for name, value in given.items() for text in ("-a", f"{name}={value}"))


def stock_crawl(folder: Path, *options: str) -> Done:
    """Crawl with Scrapy as it is, outside of the project, at full speed and with its AutoThrottle."""
    command = [sys.executable, "-m", "scrapy", "runspider", str(REPOSITORY / "tests/e2e/spiders/errands.py")]
    command += ["-s", "DOWNLOAD_DELAY=0", "-s", "ROBOTSTXT_OBEY=1", "-s", "TELNETCONSOLE_ENABLED=0"]
    done = subprocess.run(
        [*command, *THROTTLED, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr, 0.0)


def arrivals(base_url: str) -> list[float]:
    """Return when each page was asked for, without robots.txt, by the site's log."""
    return [moment for moment, path in requests_served(base_url)["arrivals"] if path != "/robots.txt"]


def pauses(base_url: str) -> list[float]:
    moments = arrivals(base_url)
    return [later - earlier for earlier, later in pairwise(moments)]


@pytest.fixture
def site(sites: dict[str, str]) -> str:
    """A local site that counts from 0."""
    requests_served(sites["books"], reset=True)
    return sites["books"]


def assert_spaced(base_url: str, least_seconds: float, pages: int = PAGES) -> None:
    """The site was asked so many times, and never sooner than that after the last time.

    What the log knows is when requests arrived, which on a busy machine is a little later than when they were
    sent, and not always by the same time.
    """
    between = pauses(base_url)
    assert len(between) == pages - 1
    assert min(between) > least_seconds - 0.15, between
    assert sum(between) > (pages - 1) * least_seconds - 0.15, between


def named(base_url: str) -> str:
    """Return the address of a local site under a name, for which no exemption is made."""
    return base_url.replace("127.0.0.1", "shop.example")


EVERYWHERE_IS_HERE = ("-s", "TWISTED_DNS_RESOLVER=tests.e2e.components.EverywhereIsHere")


class TestFloor:
    def test_no_spider_undercuts_it(self, lonely_host: Host, site: str) -> None:
        """Neither by its delay, nor by its concurrency, nor by a queue of its own for each request."""
        host = Host(lonely_host.folder, settings={"CRAWLER_POLITENESS_FLOOR_SECONDS": "0.5"})
        arguments = errands(named(site), slot_each=1)
        done = host.crawl("errands", *TEST_SPIDERS, *arguments, *EVERYWHERE_IS_HERE)
        assert done.status == 0, done.err
        assert host.run().counts.scraped == PAGES
        assert_spaced(site, 0.5)

    @pytest.mark.slow
    def test_this_machine_is_exempt(self, lonely_host: Host, site: str) -> None:
        host = Host(lonely_host.folder, settings={"CRAWLER_POLITENESS_FLOOR_SECONDS": "60"})
        assert host.crawl("errands", *TEST_SPIDERS, *errands(site)).status == 0
        assert host.run().counts.scraped == PAGES

    @pytest.mark.slow
    def test_control_stock_autothrottle_undercuts_it(self, tmp_path: Path, site: str) -> None:
        done = stock_crawl(tmp_path, *errands(named(site), slot_each=1), *EVERYWHERE_IS_HERE)
        assert done.status == 0, done.err
        assert len(arrivals(site)) == PAGES
        assert sum(pauses(site)) < 0.5 * (PAGES - 1) / 2

    def test_a_spider_that_sets_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "greedy.py").write_text(
            "from scrapy import Spider\n"
            "class Greedy(Spider):\n"
            "    name = 'greedy'\n"
            "    custom_settings = {'POLITENESS_FLOOR_SECONDS': 0, 'EXTENSIONS': {}}\n"
        )
        host = Host(tmp_path / "host", settings={"PYTHONPATH": str(tmp_path)})
        done = host.scrapy("crawl", "greedy", "-s", "SPIDER_MODULES=greedy")
        assert done.status == 2
        assert "POLITENESS_FLOOR_SECONDS is in the custom_settings of the spider 'greedy'" in done.err
        assert "lacks 'extensions.politeness.Politeness'" in done.err
        assert not host.state_dir.exists()


class TestRobots:
    @pytest.mark.parametrize(
        ("wish", "options"),
        [
            ("Crawl-delay: 0.5", THROTTLED),
            pytest.param("Crawl-delay: 0.5", (), marks=pytest.mark.slow),
            pytest.param("Request-rate: 2/1", (), marks=pytest.mark.slow),
        ],
    )
    def test_its_wish_is_kept(
        self, wish: str, options: tuple[str, ...], lonely_host: Host, site: str
    ) -> None:
        control(site, robots=f"User-agent: *\n{wish}\n")
        done = lonely_host.crawl("errands", *TEST_SPIDERS, *errands(site), *options)
        assert done.status == 0, done.err
        assert lonely_host.run().counts.scraped == PAGES
        assert_spaced(site, 0.5)

    @pytest.mark.slow
    def test_control_stock_autothrottle_undercuts_it(self, tmp_path: Path, site: str) -> None:
        control(site, robots="User-agent: *\nCrawl-delay: 0.5\n")
        done = stock_crawl(tmp_path, *errands(site))
        assert done.status == 0, done.err
        assert len(arrivals(site)) == PAGES
        assert sum(pauses(site)) < 0.5 * (PAGES - 1) / 2


YEAR_SECONDS = 365 * 86400
BY_DATE: dict[str, object] = {"status": 429, "retry_after_seconds": 2, "retry_after": "date"}
WISHES: dict[str, dict[str, object]] = {
    "seconds": {"status": 429, "retry_after_seconds": 2},
    "date": BY_DATE | {"status": 503},
    "date of a clock that is a year ahead": BY_DATE | {"clock_ahead_seconds": YEAR_SECONDS},
    "date of a clock that is a year behind": BY_DATE | {"clock_ahead_seconds": -YEAR_SECONDS},
}


class TestRetryAfter:
    @pytest.mark.parametrize(
        "wish", ["seconds", *(pytest.param(wish, marks=pytest.mark.slow) for wish in list(WISHES)[1:])]
    )
    def test_holds_back_every_request_for_the_site(self, wish: str, lonely_host: Host, site: str) -> None:
        """Also those that waited in its queue already."""
        control(site, faults=[{"kind": "status", "times": 1, **WISHES[wish]}])
        done = lonely_host.crawl("errands", *TEST_SPIDERS, *errands(site), *ONE_BY_ONE)
        assert done.status == 0, done.err
        assert lonely_host.run().counts.scraped == PAGES
        first, *others = pauses(site)
        assert len(others) == PAGES - 1
        assert first > 1.9, (first, others)
        assert sum(others) < first, "afterwards the crawl is as fast as before"

    @pytest.mark.slow
    def test_control_stock_scrapy_does_not_hear_it(self, tmp_path: Path, site: str) -> None:
        control(site, faults=[{"kind": "status", "times": 1, **WISHES["seconds"]}])
        done = stock_crawl(tmp_path, *errands(site), *ONE_BY_ONE)
        assert done.status == 0, done.err
        assert len(arrivals(site)) == PAGES + 1
        assert pauses(site)[0] < 1.0

    @pytest.mark.slow
    def test_a_site_that_gives_no_time_is_left_alone_as_long_as_a_repeat_waits(
        self, lonely_host: Host, site: str
    ) -> None:
        control(site, faults=[{"kind": "status", "status": 429, "times": 1, "retry_after": "none"}])
        options = (*ONE_BY_ONE, "-s", "RETRY_DELAY_SECONDS=2")
        assert lonely_host.crawl("errands", *TEST_SPIDERS, *errands(site), *options).status == 0
        assert pauses(site)[0] > 1.9

    @pytest.mark.slow
    def test_no_other_site_waits(self, lonely_host: Host, sites: dict[str, str]) -> None:
        busy, other = sites["books"], sites["earthquakes"].replace("127.0.0.1", "localhost")
        for base_url in (busy, other):
            requests_served(base_url, reset=True)
        control(busy, faults=[{"kind": "status", "status": 429, "retry_after_seconds": 4, "times": 1}])
        # The second site has no front page: being asked is what counts.
        paths = " ".join(f"{base_url}?{number}" for number in range(PAGES) for base_url in (busy, other))
        done = lonely_host.crawl("errands", *TEST_SPIDERS, *errands("", paths=paths), *ONE_BY_ONE)
        assert done.status == 0, done.err
        assert len(arrivals(other)) == PAGES
        told, *waited = arrivals(busy)
        assert min(waited) - told > 3.9
        assert max(arrivals(other)) - told < 3.0

    def test_too_long_a_time_is_left_to_later_runs_which_know_it(self, host: Host, site: str) -> None:
        control(site, faults=[{"kind": "status", "status": 429, "retry_after_seconds": 900}])
        done = host.crawl("errands", *TEST_SPIDERS, *errands(site), *ONE_BY_ONE)
        assert done.status == 0, done.err
        assert "longer than a crawl waits" in done.err
        assert len(arrivals(site)) == 1
        report = host.report("failed", "list")
        reasons = sorted((row["kind"], row["reason"], row["attempts"]) for row in report["requests"])
        assert reasons == [
            *[("blocked", "held_back", 0)] * (PAGES - 1),
            ("blocked", "too_many_requests", 1),
        ]
        [hold] = report["holds"]
        assert (hold["source"], hold["site"]) == ("errands", "127.0.0.1")
        due = {row["next_try_at"] for row in report["requests"] if row["reason"] == "held_back"}
        assert min(due) <= hold["until"] <= max(due)

        requests_served(site, reset=True)
        control(site, faults=[])
        one_more = errands(site, pages=1, first=100)
        done = host.crawl("errands", *TEST_SPIDERS, *one_more)
        assert done.status == 0, done.err
        assert requests_served(site)["requests"] == 0, "not even robots.txt"
        assert len(host.report("failed", "list")["requests"]) == PAGES

        assert host.report("failed", "retry") == {"due": PAGES}
        done = host.crawl("errands", *TEST_SPIDERS, *errands(site, pages=0))
        assert done.status == 0, done.err
        assert {key for key, _content in host.versions("errands")} == {str(n) for n in range(PAGES)}
        assert host.report("failed", "list") == {"requests": [], "holds": []}


@pytest.mark.slow
def test_a_site_that_makes_one_crawl_wait_makes_no_other_wait(
    lonely_host: Host, sites: dict[str, str]
) -> None:
    """Each source is a process; what they share is the card."""
    control(sites["books"], faults=[{"kind": "status", "status": 429, "retry_after_seconds": 100}])
    with lonely_host.crawling("books", "-a", f"base_url={sites['books']}") as waiting:
        waiting.wait_for_log("asks to be left alone for 100 s: its requests wait")
        done = lonely_host.crawl("earthquakes", "-a", f"base_url={sites['earthquakes']}")
        assert done.status == 0, done.err
        assert waiting.process.poll() is None
    assert lonely_host.runs("earthquakes")[0].counts.scraped > 0


@pytest.mark.slow
def test_three_tries_so_many_seconds_apart_and_others_meanwhile(lonely_host: Host, site: str) -> None:
    control(site, faults=[{"kind": "status", "status": 500, "paths": "index"}])
    paths = " ".join(["index.html", *(f"?{number}" for number in range(PAGES))])
    options = ("-s", "RETRY_DELAY_SECONDS=2", *ONE_BY_ONE)
    done = lonely_host.crawl("errands", *TEST_SPIDERS, *errands(site, paths=paths), *options)
    assert done.status == 0, done.err
    log = requests_served(site)["arrivals"]
    tries = [moment for moment, path in log if path == "/index.html"]
    assert len(tries) == 3
    assert min(tries[1] - tries[0], tries[2] - tries[1]) > 1.9
    assert sum(tries[0] < moment < tries[1] for moment, path in log if path == "/") == PAGES
