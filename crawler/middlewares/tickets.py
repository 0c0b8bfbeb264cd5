"""Opens a ticket for every page and closes it when the callback has ended."""

from collections.abc import AsyncIterator
from typing import Any, Self
from weakref import WeakKeyDictionary

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response

from crawler import stats
from crawler.pages import Page, PageBook
from crawler.run import LiveRun
from crawler.tickets import Ticket


class TicketMiddleware:
    """The spider middleware nearest to the spider: it sees each page's items, and whether it failed."""

    def __init__(self, pages: PageBook, crawler: Crawler) -> None:
        self._pages = pages
        self._crawler = crawler
        self._failed: WeakKeyDictionary[Response, bool] = WeakKeyDictionary()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of this crawl."""
        return cls(LiveRun.of(crawler).pages, crawler)

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Hand on what the callback yields, entering each item under its page."""
        page = Page(response.url, Ticket(self._settled))
        complete = False
        try:
            async for output in result:
                if output is not None and not isinstance(output, Request):
                    self._pages.enter(output, page)
                yield output
            complete = not self._failed.pop(response, False)
        finally:
            page.ticket.close(complete=complete)

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        """Remember that the callback raised, also if another middleware makes up for it."""
        self._failed[response] = True

    def _settled(self, seen: bool) -> None:
        self._crawler.stats.inc_value(stats.PAGES_SETTLED if seen else stats.PAGES_UNFINISHED)
