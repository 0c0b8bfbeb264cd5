"""The last pipeline: hands each item to the run's courier."""

import asyncio
from typing import Any, Self

from scrapy.crawler import Crawler

from crawler.run import LiveRun


class DeliverPipeline:
    """Encodes and enqueues; waits only while RAM has no room, which is what slows the crawl down."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the pipeline of this crawl."""
        return cls(LiveRun.of(crawler))

    async def open_spider(self) -> None:
        """Open the run in a thread: making the spool writes its whole cap to the card once."""
        await asyncio.to_thread(self._run.open)

    async def process_item(self, item: Any) -> Any:
        """Take charge of the item and return it as it is."""
        await self._run.deliver(item)
        return item
