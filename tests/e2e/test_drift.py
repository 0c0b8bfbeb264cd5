"""A site that changes, goes away, blocks or has nothing new: what the run's row, log and sample say."""

import json
import re
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.ledger import Run, RunLedger
from demo.sites.process import control, running_sites
from demo.sites.server import SCALES
from tests.support.crawls import Host, addresses

pytestmark = pytest.mark.e2e

BOOKS = SCALES["small"].books
EVENTS = SCALES["small"].earthquakes
ALL_FEEDS = "^/earthquakes/"


def crawl(host: Host, source: str, base_url: str) -> str:
    """Crawl to the end and return the log."""
    done = host.crawl(source, *addresses(base_url))
    assert done.status == 0, done.err
    return done.err


def as_if_crawled(host: Host, times: int, run: Run | None = None) -> None:
    """Enter a run, the newest if not told otherwise, so many times more into the ledger."""
    run = run or host.run()
    with closing(RunLedger(host.state_dir / "runs.sqlite")) as ledger:
        for number in range(times):
            again = replace(run, run_id=f"{run.run_id}-{number}")
            ledger.start(again)
            ledger.end(again)


def drift(host: Host) -> list[dict[str, Any]] | None:
    """Return what the newest row of ``crawler_jobs`` says of drift; None if the run was not judged."""
    ((stats,),) = host.query("SELECT stats FROM crawler_jobs ORDER BY id DESC LIMIT 1")
    found: list[dict[str, Any]] | None = stats.get("drift")
    return found


def kinds(host: Host) -> list[tuple[str, str]]:
    return [(finding["kind"], finding["cause"]) for finding in drift(host) or []]


def sample_of(host: Host, source: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sample_path(host, source).read_text())
    return document


def sample_path(host: Host, source: str) -> Path:
    return host.state_dir / "samples" / f"{source}.json"


@pytest.mark.slow
def test_a_field_that_is_gone_is_found_with_a_page_that_lacks_it(host: Host, sites: dict[str, str]) -> None:
    base_url = sites["books"]
    for _ in range(4):
        crawl(host, "books", base_url)
    assert drift(host) == []
    assert not sample_path(host, "books").exists()

    control(base_url, rewrites={"product_main": "product-detail"})
    log = crawl(host, "books", base_url)
    assert kinds(host) == [("field_missing", "site_changed")] * 2
    found = drift(host) or []
    assert {finding["subject"] for finding in found} == {"Book.title", "Book.rating"}
    assert {(finding["now"], finding["usual"]) for finding in found} == {(0, 1)}
    assert f"0 of {BOOKS} items have a value in Book.title; usually 100%" in log
    assert "'crawler/drift/field_missing': 2" in log
    assert f"A page that shows it was kept: {sample_path(host, 'books')}" in log

    sample = sample_of(host, "books")
    assert (sample["source"], sample["run_id"]) == ("books", host.run().run_id)
    assert sample["findings"] == found
    assert re.fullmatch(rf"{base_url}catalogue/[^/]+/index\.html", sample["page"]["url"])
    assert (sample["page"]["status"], sample["page"]["why"]) == (200, "lacking")
    assert 'class="col-sm-6 product-detail"' in sample["page"]["head"]
    assert sample["page"]["headers"]["Content-Type"] == "text/html"
    assert sample_path(host, "books").stat().st_size <= 64 * 1024

    # Mended on the site: no finding, and the sample stays for whoever looks for it.
    control(base_url, rewrites={})
    crawl(host, "books", base_url)
    assert drift(host) == []
    assert sample_of(host, "books") == sample


def test_first_runs_never_alarm(host: Host, sites: dict[str, str]) -> None:
    base_url = sites["earthquakes"]
    crawl(host, "earthquakes", base_url)
    as_if_crawled(host, 1)
    control(base_url, faults=[{"kind": "status", "status": 403, "paths": ALL_FEEDS}])
    log = crawl(host, "earthquakes", base_url)
    assert host.run().counts.scraped == 0
    assert drift(host) is None
    assert "unlike those before" not in log


@pytest.fixture
def known(host: Host, sites: dict[str, str]) -> Host:
    """A host that has crawled the earthquakes often enough to know what is usual."""
    crawl(host, "earthquakes", sites["earthquakes"])
    as_if_crawled(host, 3)
    return host


def changes_markup(base_url: str) -> None:
    control(base_url, rewrites={'"features"': '"events"'})


def lists_nothing(base_url: str) -> None:
    control(base_url, rewrites={'"features":[': '"features":[],"others":['})


def faulty(**fault: Any) -> Callable[[str], None]:
    def strike(base_url: str) -> None:
        control(base_url, faults=[{"paths": ALL_FEEDS, **fault}])

    return strike


@pytest.mark.parametrize(
    ("happens", "cause", "why"),
    [
        (changes_markup, "site_changed", "raised"),
        pytest.param(lists_nothing, "site_changed", "empty", marks=pytest.mark.slow),
        (faulty(kind="status", status=403), "blocked", "failed"),
        pytest.param(faulty(kind="status", status=429), "blocked", "failed", marks=pytest.mark.slow),
        pytest.param(faulty(kind="challenge", status=200), "blocked", "failed", marks=pytest.mark.slow),
        pytest.param(faulty(kind="status", status=500), "broken", "failed", marks=pytest.mark.slow),
        pytest.param(faulty(kind="status", status=404), "gone", "failed", marks=pytest.mark.slow),
        pytest.param(faulty(kind="drop"), "unreachable", None, marks=pytest.mark.slow),
    ],
    ids=["markup", "nothing listed", "403", "429", "challenge", "500", "404", "dropped"],
)
def test_a_run_without_items_says_why(
    happens: Callable[[str], None], cause: str, why: str | None, known: Host, sites: dict[str, str]
) -> None:
    base_url = sites["earthquakes"]
    happens(base_url)
    log = crawl(known, "earthquakes", base_url)
    assert kinds(known) == [("zero_items", cause)]
    assert f"No items; usually {EVENTS}. Likely cause: " in log
    assert "'crawler/drift/zero_items': 1" in log
    if why is None:
        assert not sample_path(known, "earthquakes").exists()
    else:
        page = sample_of(known, "earthquakes")["page"]
        assert page["why"] == why
        assert page["url"].startswith(f"{base_url}earthquakes/")


def test_a_site_that_is_down_is_told_from_one_that_changed(host: Host) -> None:
    with running_sites(scale="small") as sites:
        base_url = sites["earthquakes"]
        crawl(host, "earthquakes", base_url)
    as_if_crawled(host, 3)
    crawl(host, "earthquakes", base_url)
    assert kinds(host) == [("zero_items", "unreachable")]


@pytest.mark.slow
def test_a_site_whose_name_is_gone_is_told_from_one_that_is_down(known: Host) -> None:
    """No name can be given up for a test, so the runs before are entered as if they had been of this one."""
    gone = "http://nowhere.invalid/"
    run = known.run()
    assert run.review is not None
    review = replace(run.review, profile=replace(run.review.profile, site=gone))
    as_if_crawled(known, 3, replace(run, run_id="of-the-name-that-is-gone", review=review))
    crawl(known, "earthquakes", gone)
    assert kinds(known) == [("zero_items", "dns")]


def test_nothing_new_is_no_alarm(known: Host, sites: dict[str, str]) -> None:
    log = crawl(known, "earthquakes", sites["earthquakes"])
    assert "'crawler/pages/not_modified': 1" in log
    assert known.run().counts.scraped == 0
    assert drift(known) == []
    # Control: with the page memory off the page is read, and were it empty, that would be one.
    lists_nothing(sites["earthquakes"])
    crawl(known, "earthquakes", sites["earthquakes"])
    assert kinds(known) == [("zero_items", "site_changed")]


@pytest.mark.slow
def test_what_is_wrong_stays_wrong_until_it_is_accepted(known: Host, sites: dict[str, str]) -> None:
    base_url = sites["earthquakes"]
    lists_nothing(base_url)
    for _ in range(2):
        crawl(known, "earthquakes", base_url)
        assert kinds(known) == [("zero_items", "site_changed")]
    as_if_crawled(known, 30)
    crawl(known, "earthquakes", base_url)
    assert kinds(known) == [("zero_items", "site_changed")]


@pytest.mark.slow
def test_an_interrupted_run_is_neither_judged_nor_compared_with(known: Host, sites: dict[str, str]) -> None:
    base_url = sites["earthquakes"]
    control(base_url, faults=[{"kind": "delay", "delay_seconds": 3.0, "paths": ALL_FEEDS}])
    with known.crawling("earthquakes", *addresses(base_url)) as crawling:
        crawling.wait_for_log("Spider opened")
        crawling.send(signal.SIGTERM)
        done = crawling.end()
    assert done.status == 0, done.err
    assert (known.run().status, known.run().review) == ("interrupted", None)
    assert drift(known) is None


def test_wrong_thresholds_are_reported_with_all_other_wrong_settings(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "wrong_spiders"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "wrong.py").write_text(
        "from crawler.source import SourceSpider\n\n\n"
        "class WrongSpider(SourceSpider):\n"
        "    name = 'wrong'\n"
        "    base_url = 'http://127.0.0.1:9/'\n"
        "    drift = {'itmes': 0.3, 'errors': 30}\n"
    )
    settings = {"PYTHONPATH": str(tmp_path), "CRAWLER_SPOOL_MAX_BYTES": "much"}
    wrong = replace(host, settings=settings)
    done = wrong.scrapy("crawl", "wrong", "-s", "SPIDER_MODULES=wrong_spiders")
    assert done.status == 2
    assert "3 wrong setting(s); nothing was started" in done.err
    assert "CRAWLER_SPOOL_MAX_BYTES='much'" in done.err
    assert "drift['itmes'] is unknown; allowed: runs, since, items," in done.err
    assert "drift['errors']=30; allowed: a share from 0 to 1" in done.err
    assert not host.state_dir.exists()
