"""``revisit = "never"``: which requests are not made, and when a page is marked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import Response

from crawler.middlewares.deltafetch import DeltaFetch
from crawler.pages import SettledPage
from tests.support.remembering import DictMemory, idle_crawler

LISTING, PAGE = "https://shop.example/list", "https://shop.example/page"
SAFE = SettledPage(items=2, is_seen=True)


class World:
    """A middleware, its memory, and what it counted."""

    def __init__(self) -> None:
        self.memory = DictMemory()
        crawler = idle_crawler(Spider("shop"))
        self.middleware = DeltaFetch(self.memory, crawler)
        self.stats = crawler.stats.values

    def passed(self, *outputs: Any) -> list[Any]:
        """Return what is left of what a callback yields."""

        async def result() -> AsyncIterator[Any]:
            for output in outputs:
                yield output

        async def collected() -> list[Any]:
            response = Response(LISTING, request=Request(LISTING))
            return [output async for output in self.middleware.process_spider_output(response, result())]

        return asyncio.run(collected())


@pytest.fixture
def world() -> World:
    return World()


def test_a_page_whose_items_are_safe_is_not_asked_for_again(world: World) -> None:
    item, page, other = {"id": 1}, Request(PAGE), Request(LISTING + "?page=2")
    assert world.passed(item, page, other) == [item, page, other]
    world.middleware.page_settled(request=page, page=SAFE)
    assert world.passed(item, Request(PAGE), other) == [item, other]
    assert world.stats == {"deltafetch/stored": 1, "deltafetch/skipped": 1}


@pytest.mark.parametrize(
    "settled",
    [
        SettledPage(items=2, is_seen=False),
        SettledPage(items=0, is_seen=True),
        # Skipped, it would hide its links.
        SettledPage(items=2, links=1, is_seen=True),
        SettledPage(links=1, is_seen=True),
    ],
)
def test_any_other_page_is(settled: SettledPage, world: World) -> None:
    world.middleware.page_settled(request=Request(PAGE), page=settled)
    assert len(world.passed(Request(PAGE))) == 1
    assert world.stats == {}


def test_nothing_is_marked_when_an_item_is_yielded(world: World) -> None:
    world.passed({"id": 1})
    assert not world.memory.pages


def test_pages_are_told_apart_as_scrapy_tells_requests_apart(world: World) -> None:
    world.middleware.page_settled(request=Request(PAGE + "?a=1&b=2"), page=SAFE)
    assert world.passed(Request(PAGE + "?b=2&a=1#part")) == []
    assert len(world.passed(Request(PAGE), Request(PAGE + "?a=1&b=2", method="POST"))) == 2


def test_the_meta_keys_of_scrapy_deltafetch_mean_what_they_mean_there(world: World) -> None:
    keyed = Request(PAGE + "?session=1", meta={"deltafetch_key": "product 7"})
    world.middleware.page_settled(request=keyed, page=SAFE)
    assert world.passed(Request(PAGE + "?session=2", meta={"deltafetch_key": "product 7"})) == []
    assert len(world.passed(Request(PAGE + "?session=1"))) == 1
    insistent = {"deltafetch_key": "product 7", "deltafetch_enabled": False}
    assert len(world.passed(Request(PAGE, meta=insistent))) == 1


def test_a_page_without_a_request_is_nobodys(world: World) -> None:
    world.middleware.page_settled(request=None, page=SAFE)
    assert not world.memory.pages
