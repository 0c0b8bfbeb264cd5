"""``revisit = "if-changed"``: what is asked, which answers end a page, and what is remembered of it."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK
from scrapy.settings import Settings
from scrapy.settings.default_settings import DOWNLOADER_MIDDLEWARES_BASE

from crawler import settings, stats
from crawler.middlewares.conditional import ConditionalGet, NotModified, source_of
from crawler.pages import SettledPage
from spiders.books import BooksSpider
from tests.e2e.spiders.shelf import ShelfNeverSpider, ShelfSpider
from tests.support.remembering import DictMemory, idle_crawler

PAGE, OTHER = "https://shop.example/page", "https://shop.example/other"
TAG = '"one"'
MONDAY, TUESDAY = "Mon, 06 Jan 2025 08:00:00 GMT", "Tue, 07 Jan 2025 08:00:00 GMT"
VALIDATORS = {"ETag": TAG, "Last-Modified": MONDAY, "Date": TUESDAY}
ASKED = {"If-None-Match": TAG, "If-Modified-Since": MONDAY}
ITEMS = SettledPage(items=2, is_seen=True)


class Shop(Spider):
    name = "shop"

    def parse(self, response: Response) -> None: ...

    def parse_other(self, response: Response) -> None: ...


class World:
    """A middleware and its memory over several runs of a crawl."""

    def __init__(self) -> None:
        self.memory = DictMemory()
        self.new_run()

    def new_run(self, source: bytes = b"class Shop", **arguments: Any) -> None:
        self.spider = Shop(**arguments)
        self.crawler = idle_crawler(self.spider)
        self.middleware = ConditionalGet(self.memory, self.crawler, source)

    @property
    def counted(self) -> dict[str, int]:
        return self.crawler.stats.values  # type: ignore[no-any-return]

    def request(self, url: str = PAGE, **options: Any) -> Request:
        return Request(url, callback=self.spider.parse, **options)

    def sent(self, request: Request) -> dict[str, str]:
        """Send a request; return the conditional headers it has then."""
        asyncio.run(self.middleware.process_request(request))
        found = {name: request.headers.get(name) for name in ASKED}
        return {name: value.decode("latin-1") for name, value in found.items() if value is not None}

    def answered(
        self,
        request: Request,
        body: bytes = b"a page",
        headers: Mapping[str, str | bytes] = VALIDATORS,
        *,
        status: int = 200,
        flags: list[str] | None = None,
    ) -> Response:
        response = Response(request.url, status, dict(headers), body, flags, request)
        return self.middleware.process_response(request, response)

    def visit(
        self,
        body: bytes = b"a page",
        headers: Mapping[str, str | bytes] = VALIDATORS,
        *,
        page: SettledPage = ITEMS,
        request: Request | None = None,
        **answer: Any,
    ) -> dict[str, str]:
        """Ask for a page, get it in full, and let it settle; return what was asked."""
        request = request or self.request()
        asked = self.sent(request)
        self.answered(request, body, headers, **answer)
        self.middleware.page_settled(request=request, page=page)
        return asked


@pytest.fixture
def world() -> World:
    return World()


class TestAsking:
    def test_a_page_whose_items_are_safe_is_asked_whether_it_changed(self, world: World) -> None:
        assert world.visit() == {}
        world.new_run()
        assert world.sent(world.request()) == ASKED

    @pytest.mark.parametrize(
        "page",
        [
            SettledPage(items=2, is_seen=False),
            SettledPage(items=0, links=0, is_seen=True),
            SettledPage(items=2, links=1, is_seen=True),
            SettledPage(items=0, links=20, is_seen=True),
        ],
    )
    def test_any_other_page_is_not(self, page: SettledPage, world: World) -> None:
        world.visit(page=page)
        assert world.sent(world.request()) == {}

    def test_nothing_is_remembered_before_the_page_has_settled(self, world: World) -> None:
        request = world.request()
        world.sent(request)
        world.answered(request)
        assert not world.memory.pages

    @pytest.mark.parametrize(
        "page", [SettledPage(items=2, links=1, is_seen=True), SettledPage(items=0, is_seen=True)]
    )
    def test_what_is_no_longer_such_a_page_is_forgotten(self, page: SettledPage, world: World) -> None:
        world.visit()
        world.visit(b"changed", {"ETag": '"two"'}, page=page)
        assert not world.memory.pages

    def test_a_page_that_failed_after_it_changed_keeps_what_was_known(self, world: World) -> None:
        world.visit()
        world.visit(b"changed", {"ETag": '"two"'}, page=SettledPage(items=1, is_seen=False))
        assert world.sent(world.request()) == ASKED

    @pytest.mark.parametrize("answer", [{"status": 404}, {"status": 203}, {"flags": ["partial"]}])
    def test_only_a_whole_page_is_remembered(self, answer: Mapping[str, Any], world: World) -> None:
        world.visit(**answer)
        assert not world.memory.pages

    @pytest.mark.parametrize("value", [{"Cache-Control": "no-store"}, {"Vary": "*"}])
    def test_a_page_that_may_not_be_remembered_is_forgotten(
        self, value: Mapping[str, str], world: World
    ) -> None:
        world.visit()
        world.visit(b"changed", {**VALIDATORS, "ETag": '"two"', **value})
        assert not world.memory.pages

    def test_a_tag_is_sent_as_it_came_weak_or_beyond_ascii(self, world: World) -> None:
        for url, tag in ((PAGE, b'W/"one"'), (OTHER, b'"\xfc\xff"')):
            world.visit(headers={"ETag": tag}, request=world.request(url))
            again = world.request(url)
            world.sent(again)
            assert again.headers["If-None-Match"] == tag

    def test_vary(self, world: World) -> None:
        headers = {"Accept-Language": "de"}
        world.visit(headers=VALIDATORS | {"Vary": "accept-language"}, request=world.request(headers=headers))
        assert world.sent(world.request(headers=headers)) == ASKED
        assert world.sent(world.request(headers={"Accept-Language": "en"})) == {}
        assert world.sent(world.request()) == {}


def a_function_within_another() -> Callable[[Response], None]:
    """What it does may depend on more than its name says."""

    def within(response: Response) -> None: ...

    return within


class TestContext:
    @pytest.mark.parametrize(
        "change",
        [
            lambda world: world.request(cb_kwargs={"price": 2}),
            lambda world: world.request(meta={"category": "fiction"}, cb_kwargs={"price": 1}),
            lambda world: Request(PAGE, world.spider.parse_other, cb_kwargs={"price": 1}),
            lambda _world: Request(PAGE, a_function_within_another(), cb_kwargs={"price": 1}),
            lambda world: world.request(cb_kwargs={"price": object()}),
        ],
    )
    def test_a_page_whose_items_may_come_out_otherwise_is_read(
        self, change: Callable[[World], Request], world: World
    ) -> None:
        first = world.request(cb_kwargs={"price": 1})
        world.visit(request=first)
        assert world.sent(world.request(cb_kwargs={"price": 1})) == ASKED
        changed = change(world)
        assert world.sent(changed) == {}
        assert world.answered(changed).status == 200

    def test_so_is_every_page_after_the_spider_was_mended_or_was_given_another_argument(
        self, world: World
    ) -> None:
        world.visit()
        world.new_run(source=b"class Shop, mended")
        assert world.sent(world.request()) == {}
        world.new_run(details="yes")
        assert world.sent(world.request()) == {}
        world.new_run(_job="0a1b", deltafetch_reset="1")
        assert world.sent(world.request()) == ASKED

    def test_what_scrapy_and_the_callback_add_to_the_meta_makes_no_difference(self, world: World) -> None:
        request = world.request(meta={"category": "fiction"})
        world.sent(request)
        request.meta.update(download_latency=0.1, download_slot="shop.example", depth=3)
        world.answered(request)
        request.meta["seen_by_callback"] = True
        world.middleware.page_settled(request=request, page=ITEMS)
        assert world.sent(world.request(meta={"category": "fiction", "depth": 5})) == ASKED

    def test_a_request_without_callback_goes_to_parse(self, world: World) -> None:
        world.visit(request=Request(PAGE))
        assert world.sent(Request(PAGE)) == ASKED


def test_the_source_of_a_spider_is_its_file_and_those_of_its_own_bases() -> None:
    books, shelf = (Path(inspect.getfile(spidercls)).read_bytes() for spidercls in (BooksSpider, ShelfSpider))
    assert source_of(BooksSpider) == books
    assert source_of(ShelfNeverSpider) == shelf + books


class TestAnswers:
    def test_not_modified_ends_the_page_and_nothing_has_failed(self, world: World) -> None:
        world.visit()
        request = world.request(errback=pytest.fail)
        assert world.sent(request) == ASKED
        with pytest.raises(NotModified) as caught:
            world.answered(request, b"", status=304)
        assert isinstance(caught.value, IgnoreRequest)
        assert request.errback is None
        assert world.counted == {stats.PAGES_NOT_MODIFIED: 1}

    def test_not_modified_that_nobody_asked_for_is_passed_on(self, world: World) -> None:
        request = world.request()
        world.sent(request)
        assert world.answered(request, b"", status=304).status == 304
        assert world.counted == {}

    def test_a_whole_page_that_is_as_it_was_ends_too(self, world: World) -> None:
        world.visit(headers={})
        request = world.request(errback=pytest.fail)
        assert world.sent(request) == {}
        with pytest.raises(NotModified):
            world.answered(request, headers={})
        assert world.counted == {stats.PAGES_SAME_CONTENT: 1}

    def test_its_new_tag_is_remembered_and_when_it_was_parsed(self, world: World) -> None:
        world.visit()
        world.memory.now = 2
        request = world.request()
        world.sent(request)
        with pytest.raises(NotModified):
            world.answered(request, headers={"ETag": '"two"'})
        [remembered] = world.memory.pages.values()
        assert remembered.read_at == 1
        assert world.sent(world.request()) == {"If-None-Match": '"two"'}

    def test_the_page_is_not_ended_for_a_context_in_which_it_was_not_parsed(self, world: World) -> None:
        world.visit()
        other = world.request(cb_kwargs={"price": 1})
        assert world.visit(request=other) == {}
        assert world.sent(world.request(cb_kwargs={"price": 1})) == ASKED

    def test_a_changed_page_is_parsed_and_remembered_as_it_is(self, world: World) -> None:
        world.visit()
        assert world.visit(b"changed", {"ETag": '"two"'}) == ASKED
        assert world.sent(world.request()) == {"If-None-Match": '"two"'}
        assert world.counted == {}

    def test_a_site_caught_with_one_tag_on_two_contents_is_not_asked_about_that_page_again(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        for url in (PAGE, OTHER):
            world.visit(request=world.request(url))
            world.visit(b"changed", request=world.request(url))
        assert world.counted == {stats.PAGES_UNDER_OLD_TAG: 2}
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert PAGE in caplog.text
        # Not now, and not when it seems honest again; what it sends is compared all the same.
        for body, headers in ((b"more", {"ETag": '"two"'}), (b"and more", {"ETag": '"three"'})):
            assert world.visit(body, headers) == {}
        request = world.request()
        assert world.sent(request) == {}
        with pytest.raises(NotModified):
            world.answered(request, b"and more", {"ETag": '"four"'})
        assert world.sent(world.request()) == {}


class TestCopies:
    def redirected(self, world: World, request: Request, url: str = OTHER) -> Request:
        redirect = RedirectMiddleware(Settings())
        redirect.crawler = world.crawler
        answer = redirect.process_response(request, Response(PAGE, 301, {"Location": url}))
        assert isinstance(answer, Request)
        return answer

    def test_a_redirect_takes_no_condition_along(self, world: World) -> None:
        world.visit()
        request = world.request()
        assert world.sent(request) == ASKED
        redirected = self.redirected(world, request)
        # Scrapy has copied them.
        assert redirected.headers["If-None-Match"] == TAG.encode()
        assert world.sent(redirected) == {}

    def test_it_is_asked_with_its_own(self, world: World) -> None:
        world.visit()
        world.visit(headers={"ETag": '"other"'}, request=world.request(OTHER))
        request = world.request()
        assert world.sent(request) == ASKED
        redirected = self.redirected(world, request)
        assert world.sent(redirected) == {"If-None-Match": '"other"'}
        with pytest.raises(NotModified):
            world.answered(redirected, b"", status=304)

    def test_a_redirected_page_is_known_by_where_it_is(self, world: World) -> None:
        request = world.request()
        world.sent(request)
        world.visit(request=self.redirected(world, request))
        assert world.sent(world.request()) == {}
        assert world.sent(world.request(OTHER)) == ASKED

    def test_a_retry_asks_again(self, world: World) -> None:
        world.visit()
        request = world.request()
        world.sent(request)
        again = request.copy()
        again.meta["retry_times"] = 1
        assert world.sent(again) == ASKED
        with pytest.raises(NotModified):
            world.answered(again, b"", status=304)

    def test_what_was_forgotten_meanwhile_is_not_asked_by_a_retry(self, world: World) -> None:
        world.visit()
        request = world.request()
        world.sent(request)
        world.memory.pages.clear()
        again = request.copy()
        assert world.sent(again) == {}
        assert world.answered(again, b"", status=304).status == 304

    def test_meta_that_a_callback_hands_on_takes_nothing_along(self, world: World) -> None:
        world.visit()
        request = world.request()
        world.sent(request)
        following = world.request(OTHER, meta=request.meta)
        assert world.sent(following) == {}


class TestWhoIsLeftAlone:
    @pytest.mark.parametrize(
        "options",
        [
            {"method": "POST"},
            {"method": "HEAD"},
            {"body": b"query"},
            {"meta": {"deltafetch_enabled": False}},
            {"headers": {"If-None-Match": '"mine"'}},
            {"headers": {"If-Modified-Since": MONDAY}},
            {"headers": {"Range": "bytes=0-99"}},
        ],
    )
    def test_requests_of_another_kind(self, options: Mapping[str, Any], world: World) -> None:
        world.visit()
        request = world.request(**options)
        before = request.headers.copy()
        world.sent(request)
        assert request.headers == before
        assert world.answered(request).status == 200
        assert world.answered(request, b"", status=304).status == 304
        world.middleware.page_settled(request=request, page=ITEMS)
        assert len(world.memory.pages) == 1

    def test_a_spiders_own_condition_is_left_to_it_also_by_a_retry(self, world: World) -> None:
        world.visit()
        request = world.request(headers={"If-None-Match": '"mine"'})
        world.sent(request)
        assert world.sent(request.copy()) == {"If-None-Match": '"mine"'}

    def test_whoever_awaits_an_answer_gets_it(self, world: World) -> None:
        world.visit(request=Request(PAGE))
        request = Request(PAGE, callback=NO_CALLBACK)
        assert world.sent(request) == {}
        assert world.answered(request).status == 200

    def test_other_schemes(self, world: World) -> None:
        request = world.request("data:,page")
        world.visit(request=request)
        assert not world.memory.pages


def test_it_stands_where_it_sees_the_answers_that_callbacks_see_and_the_headers_pages_vary_by() -> None:
    components: dict[str, int | None] = {**DOWNLOADER_MIDDLEWARES_BASE, **settings.DOWNLOADER_MIDDLEWARES}
    orders = {path.rpartition(".")[2]: order for path, order in components.items() if order is not None}

    def order_of(suffix: str) -> int:
        [found] = [order for name, order in orders.items() if name.endswith(suffix)]
        return found

    own = order_of("ConditionalGet")
    for suffix in ("RetryMiddleware", "MetaRefreshMiddleware", "CompressionMiddleware", "RedirectMiddleware"):
        assert order_of(suffix) > own
    for suffix in ("DefaultHeadersMiddleware", "UserAgentMiddleware", "RobotsTxtMiddleware"):
        assert order_of(suffix) < own
