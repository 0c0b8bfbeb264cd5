"""``revisit = "never"``: pages whose items are safe are not fetched again."""

from collections.abc import AsyncIterator
from typing import Any, Self

import scrapy_deltafetch
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response

from crawler.middlewares.crawl_memory import CrawlMemory
from crawler.pages import SettledPage
from crawler.signals import page_settled


class DeltaFetch(scrapy_deltafetch.DeltaFetch):  # type: ignore[misc]
    """scrapy-deltafetch's rules, settings and meta keys, with marks that are never ahead of the data.

    The original marks a page when its first item is yielded, before any pipeline has seen it.
    """

    def __init__(self, memory: CrawlMemory, crawler: Crawler) -> None:
        self.stats = crawler.stats
        self.fingerprint = crawler.request_fingerprinter.fingerprint
        self._memory = memory

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of a crawl that never fetches a page twice; else raise NotConfigured."""
        middleware = cls(CrawlMemory.for_revisit(crawler, "never"), crawler)
        crawler.signals.connect(middleware.page_settled, page_settled)
        return middleware

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Hand on what the callback yields, without requests for pages that are remembered."""
        async for output in result:
            if isinstance(output, Request) and await self._is_seen(output):
                self.stats.inc_value("deltafetch/skipped")
            else:
                yield output

    def page_settled(self, request: Request | None, page: SettledPage) -> None:
        """Remember a page with items, all of them safe. One with links as well would hide them."""
        if request is not None and page.is_seen and page.items and not page.links:
            self._memory.note(self._get_key(request), [])
            self.stats.inc_value("deltafetch/stored")

    async def _is_seen(self, request: Request) -> bool:
        if not self._is_enabled_for_request(request):
            return False
        return await self._memory.recall(self._get_key(request)) is not None
