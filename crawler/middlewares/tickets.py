"""Opens a ticket for every page and closes it when the callback has ended."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Self
from weakref import WeakKeyDictionary, ref

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from crawler import signals, stats
from crawler.drift.survey import Survey
from crawler.pages import REFUSED, Page, PageBook, SettledPage
from crawler.run import LiveRun
from crawler.tickets import Ticket


class TicketMiddleware:
    """The spider middleware nearest to the spider: it sees each page's items, and whether it failed."""

    def __init__(self, pages: PageBook, survey: Survey, crawler: Crawler) -> None:
        self._pages = pages
        self._survey = survey
        self._crawler = crawler
        self._failed: WeakKeyDictionary[Response, bool] = WeakKeyDictionary()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of this crawl."""
        run = LiveRun.of(crawler)
        return cls(run.pages, run.reviewer.survey, crawler)

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Hand on what the callback yields, entering each item under its page."""
        outcome = SettledPage()
        # The response is not held until then: it may be large, and its items wait for a commit.
        settled = partial(self._settled, response.request, outcome, REFUSED in response.flags)
        page = Page(response.url, Ticket(settled), ref(response))
        complete = False
        try:
            async for output in result:
                if isinstance(output, Request):
                    outcome.links += 1
                elif output is not None:
                    outcome.items += 1
                    self._pages.enter(output, page)
                yield output
            complete = not self._failed.pop(response, False)
        finally:
            page.ticket.close(complete=complete)
            self._survey.page_ended(response, outcome, is_whole=complete)

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        """Remember that the callback raised, also if another middleware makes up for it."""
        self._failed[response] = True
        if isinstance(exception, IgnoreRequest):
            # It never came to the callback: its status is an error.
            self._survey.page_failed(response)
        else:
            self._survey.page_raised(response)

    def _settled(
        self, request: Request | None, outcome: SettledPage, is_refused: bool, is_seen: bool
    ) -> None:
        outcome.is_seen = is_seen
        if is_refused:
            # It is among the failures. What its errback yields is delivered, and no mark of the page.
            return
        self._crawler.stats.inc_value(stats.PAGES_SETTLED if is_seen else stats.PAGES_UNFINISHED)
        self._crawler.signals.send_catch_log(signals.page_settled, request=request, page=outcome)
