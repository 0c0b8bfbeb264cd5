"""What crawls of the tests are run with: components that watch, some that remember, and some that fail."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from itemadapter import ItemAdapter
from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred, succeed

from crawler.delivery import courier
from crawler.delivery.postgres import Sink
from crawler.delivery.spool import Batch, Settlement
from crawler.middlewares.failed_requests import FailedRequestMiddleware
from crawler.pages import SettledPage
from crawler.request_json import KEY_META
from crawler.run import LiveRun
from crawler.signals import page_settled

PHASES = ("starting", "opening", "delivering", "draining", "closing")
PHASE_BYTES = 16


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


class PageMemory:
    """Spider middleware: notes each page that counts as seen, and spares the next crawl its fetching."""

    def __init__(self, path: Path) -> None:
        self._seen = set(path.read_text().split()) if path.exists() else set()
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        memory = cls(Path(crawler.settings["PAGE_MEMORY"]))
        crawler.signals.connect(memory.page_settled, page_settled)
        return memory

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in start:
            if not isinstance(request, Request) or request.url not in self._seen:
                yield request

    def page_settled(self, request: Request, page: SettledPage) -> None:
        if page.is_seen:
            self.note(request.url)

    def note(self, url: str) -> None:
        """Remember a page, also if the process is killed right after this."""
        os.write(self._file, f"{url}\n".encode())


class Phases:
    """Extension: notes what the crawl is doing, so that a test knows at what moment it killed it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        self._phase = "opening"
        self._settled = courier.settled
        self._note(self._phase)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        phases = cls(crawler.settings["PHASES"])
        crawler.signals.connect(phases.spider_opened, signals.spider_opened)
        crawler.signals.connect(phases.spider_closed, signals.spider_closed)
        courier.settled = phases.settled
        return phases

    def spider_opened(self, spider: Spider) -> None:
        self._enter("delivering")

    def spider_closed(self, spider: Spider) -> None:
        self._enter("closing")

    def settled(self, sink: Sink, batch: Batch) -> Settlement:
        """In place of the drainer's: note that it is at work."""
        self._note("draining")
        try:
            return self._settled(sink, batch)
        finally:
            self._note(self._phase)

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._note(phase)

    def _note(self, phase: str) -> None:
        os.pwrite(self._file, phase.ljust(PHASE_BYTES).encode(), 0)


class Held:
    """Extension: notes the most items the process ever held, yielded by a callback and not yet safe."""

    def __init__(self, run: LiveRun, path: str) -> None:
        self._run = run
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        extension = cls(LiveRun.of(crawler), crawler.settings["HELD"])
        crawler.signals.connect(extension.spider_opened, signals.spider_opened)
        return extension

    def spider_opened(self, spider: Spider) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        most_queued, most_in_pipelines = 0, 0
        while True:
            most_queued = max(most_queued, self._run.courier.held)
            most_in_pipelines = max(most_in_pipelines, len(self._run.pages._pages))
            os.pwrite(self._file, f"{most_queued:12} {most_in_pipelines:12}".encode(), 0)
            await asyncio.sleep(0.05)


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
