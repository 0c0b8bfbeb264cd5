"""Which outcome settles which kept request: by what was asked for, across redirects, by nothing copied."""

from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.utils.test import get_crawler

from crawler.memory.failed_requests import Change, Failed, Settled
from crawler.middlewares.failed_requests import FailedRequestMiddleware
from crawler.options import defaults_and_environment
from crawler.pages import SettledPage
from crawler.request_json import KEY_META
from crawler.signals import page_settled, request_failed

URL, OTHER_URL = "https://shop.example/a", "https://shop.example/b"


class ShopSpider(Spider):
    name = "shop"

    def parse_thing(self, response: Response) -> None: ...

    def parse_other(self, response: Response) -> None: ...


SPIDER = ShopSpider()


class Keeper:
    """Notes what it is told to keep."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def put(self, change: Change) -> None:
        self.changes.append(change)


class Crawl:
    """The middleware of a crawl whose ledger holds one request."""

    def __init__(self, folder: Path, kept: Request) -> None:
        own = defaults_and_environment({}) | {"STATE_DIR": str(folder)}
        self.crawler: Crawler = get_crawler(ShopSpider, own)
        self.crawler.spider = SPIDER
        self.middleware = FailedRequestMiddleware.from_crawler(self.crawler)
        self.keeper = Keeper()
        self.middleware._keeper = self.keeper  # type: ignore[assignment]
        self.key = self.middleware._key(kept)
        self.middleware._keys.add(self.key)

    def settles(self, request: Request, *, is_seen: bool = True) -> list[Change]:
        """Let the page of a request settle; return what the ledger is told."""
        page = SettledPage(items=1, is_seen=is_seen)
        self.crawler.signals.send_catch_log(page_settled, request=request, page=page)
        return self.keeper.changes

    def fails(self, request: Request, exception: Exception) -> list[Change]:
        self.crawler.signals.send_catch_log(request_failed, request=request, exception=exception)
        return self.keeper.changes


@pytest.fixture
def crawl(tmp_path: Path) -> Crawl:
    return Crawl(tmp_path, Request(URL, SPIDER.parse_thing, method="POST", body=b"x"))


def post(url: str = URL, **options: Any) -> Request:
    return Request(url, SPIDER.parse_thing, method="POST", body=b"x", **options)


def test_the_same_request_settles_it_whoever_makes_it(crawl: Crawl) -> None:
    assert crawl.settles(post()) == [Settled(crawl.key)]
    assert crawl.settles(post()) == [Settled(crawl.key)], "and only once"


@pytest.mark.parametrize(
    "other",
    [
        post(OTHER_URL),
        Request(URL, SPIDER.parse_thing),
        Request(URL, SPIDER.parse_other, method="POST", body=b"x"),
        Request(URL, method="POST", body=b"x"),
    ],
    ids=["address", "method", "callback", "no callback"],
)
def test_another_request_does_not(crawl: Crawl, other: Request) -> None:
    assert crawl.settles(other) == []


def test_a_key_in_copied_meta_does_not(crawl: Crawl) -> None:
    copied = {KEY_META: crawl.key}
    assert crawl.settles(Request(OTHER_URL, SPIDER.parse_thing, meta=copied)) == []
    redirected = copied | {"redirect_times": 1, "redirect_urls": [URL]}
    assert crawl.settles(Request(OTHER_URL, SPIDER.parse_other, meta=redirected)) == []


def test_a_redirect_that_made_a_get_of_it_does(crawl: Crawl) -> None:
    meta = {KEY_META: crawl.key, "redirect_times": 1, "redirect_urls": [URL]}
    assert crawl.settles(Request(OTHER_URL, SPIDER.parse_thing, meta=meta)) == [Settled(crawl.key)]


def test_a_redirect_of_a_request_that_the_run_made_itself_does(crawl: Crawl) -> None:
    assert crawl.settles(post(OTHER_URL, meta={"redirect_urls": [URL]})) == [Settled(crawl.key)]


def test_a_page_that_is_not_safe_puts_it_off(crawl: Crawl) -> None:
    [change] = crawl.settles(post(), is_seen=False)
    assert isinstance(change, Failed)
    assert (change.key, change.kind, change.request, change.was_tried) == (
        crawl.key,
        "unfinished",
        None,
        True,
    )


def test_a_page_that_is_not_safe_and_was_not_waited_for_is_found_again(crawl: Crawl) -> None:
    assert crawl.settles(post(OTHER_URL), is_seen=False) == []


def test_a_component_that_ignores_it_on_purpose_settles_it(crawl: Crawl) -> None:
    """Such as one that knows that the page has not changed."""
    assert crawl.fails(post(), IgnoreRequest("as it was")) == [Settled(crawl.key)]


def test_a_no_of_robots_txt_gives_it_up_and_keeps_nothing_else(crawl: Crawl) -> None:
    forbidden = IgnoreRequest("Forbidden by robots.txt")
    assert crawl.fails(post(), forbidden) == crawl.fails(post(OTHER_URL), forbidden) == [Settled(crawl.key)]
    assert crawl.crawler.stats.get_value("crawler/failures/forbidden/robots") == 2


def test_failing_again_puts_it_off_and_another_failure_is_kept(crawl: Crawl) -> None:
    crawl.fails(post(), ZeroDivisionError())
    first, second = crawl.fails(post(OTHER_URL), ZeroDivisionError())
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.key, first.request, first.kind, first.reason) == (crawl.key, None, "broken", "unknown")
    assert second.key != crawl.key
    assert second.request is not None
    assert OTHER_URL in second.request
