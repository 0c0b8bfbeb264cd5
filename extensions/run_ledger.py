"""Closes the books of a run: the ledger on this host, and its row of ``crawler_jobs``."""

import asyncio
from typing import Any, Self

from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.statscollectors import StatsCollector

from crawler import stats
from crawler.run import LiveRun


class RunLedger:
    """Listens to what is rare: an item that fails or is dropped, and the end of the crawl."""

    def __init__(self, run: LiveRun, collector: StatsCollector) -> None:
        self._run = run
        self._stats = collector

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the extension, connected to its signals."""
        extension = cls(LiveRun.of(crawler), crawler.stats)
        crawler.signals.connect(extension.item_failed, signals.item_error)
        crawler.signals.connect(extension.item_dropped, signals.item_dropped)
        crawler.signals.connect(extension.spider_closed, signals.spider_closed)
        return extension

    def item_failed(self, item: Any) -> None:
        """A pipeline raised: the item is lost, the run will say so and not exit 0."""
        self._stats.inc_value(stats.ITEMS_FAILED)
        self._run.abandon(item)

    def item_dropped(self, item: Any) -> None:
        """A pipeline dropped the item on purpose: Scrapy counts it, the page is not marked seen."""
        self._run.abandon(item)

    async def spider_closed(self, spider: Spider, reason: str) -> None:
        """Everything has been yielded: bring it to safety and close the books, in a thread."""
        await asyncio.to_thread(self._run.finish, reason)
        self._run.report()
