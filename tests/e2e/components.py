"""What crawls of the tests are run with: a witness, some pipelines that fail, a resolver that leads here."""

import asyncio
import os
from typing import Any, Self

from itemadapter import ItemAdapter
from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred, succeed

from crawler.middlewares.failed_requests import FailedRequestMiddleware
from crawler.request_json import KEY_META


class Witness:
    """Behind delivery: notes each item that delivery has taken charge of, in a file of its own."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler.settings["WITNESS"])

    def process_item(self, item: Any) -> Any:
        os.write(self._file, f"{ItemAdapter(item)['number']}\n".encode())
        return item


class Dropping:
    """In front of delivery: drops every tenth item."""

    def process_item(self, item: Any) -> Any:
        if ItemAdapter(item)["number"] % 10 == 0:
            raise DropItem("every tenth one")
        return item


class Failing:
    """In front of delivery: raises for every seventh item."""

    def process_item(self, item: Any) -> Any:
        if ItemAdapter(item)["number"] % 7 == 0:
            raise ZeroDivisionError("every seventh one")
        return item


class FailingAtClose:
    """Raises at once when the spider closes, which makes Scrapy abandon the others."""

    def process_item(self, item: Any) -> Any:
        return item

    async def close_spider(self) -> None:
        raise ZeroDivisionError("at close")


class SlowAtClose:
    """Takes a minute to close."""

    def process_item(self, item: Any) -> Any:
        return item

    async def close_spider(self) -> None:
        await asyncio.sleep(60.0)


class EverywhereIsHere(CachingThreadedResolver):
    """A resolver by which every host is this machine, but none has an address that says so."""

    def getHostByName(self, name: str, timeout: Any = ()) -> "Deferred[str]":  # noqa: N802 -- Twisted's
        return succeed("127.0.0.1")


class ForgetsWhatItHandsOut:
    """Takes failed requests out of the ledger when they are handed out, not when their pages are safe."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        extension = cls(crawler)
        crawler.signals.connect(extension.spider_opened, signals.spider_opened)
        return extension

    def spider_opened(self, spider: Spider) -> None:
        middleware = self._crawler.get_spider_middleware(FailedRequestMiddleware)
        assert middleware is not None
        take_over = middleware._take_over

        async def take_over_and_forget() -> list[Request]:
            requests = await take_over()
            for request in requests:
                middleware._take_out(request.meta[KEY_META])
            await middleware._flush()
            return requests

        middleware._take_over = take_over_and_forget  # type: ignore[method-assign]
