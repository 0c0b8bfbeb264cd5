"""What tests of the page memory share: a memory without a card, and a crawl without a network."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.signalmanager import SignalManager
from scrapy.utils.request import RequestFingerprinter

from crawler.memory.page_memory import Remembered
from crawler.middlewares.crawl_memory import CrawlMemory


class DictMemory(CrawlMemory):
    """Pages by key, in RAM. ``now`` is when a page is noted to have been read."""

    def __init__(self) -> None:
        self.pages: dict[bytes, Remembered] = {}
        self.now = 1

    async def recall(self, key: bytes) -> Remembered | None:
        return self.pages.get(key)

    def note(self, key: bytes, facts: list[Any], *, read_at: int | None = None) -> None:
        self.pages[key] = Remembered(self.now if read_at is None else read_at, facts)

    def forget(self, key: bytes) -> None:
        self.pages.pop(key, None)


class Stats:
    """The counting part of Scrapy's stats."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def inc_value(self, name: str) -> None:
        self.values[name] = self.values.get(name, 0) + 1


def idle_crawler(spider: Spider) -> Crawler:
    """Return what middlewares ask a crawler for, without an engine."""
    fingerprinter: Callable[..., Any] = RequestFingerprinter
    return cast(
        Crawler,
        SimpleNamespace(
            spider=spider,
            spidercls=type(spider),
            stats=Stats(),
            signals=SignalManager(),
            request_fingerprinter=fingerprinter(),
        ),
    )
