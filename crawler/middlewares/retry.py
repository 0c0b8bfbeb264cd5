"""Three tries in all, some seconds apart, as the request for this station asked for."""

from typing import Self

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.http import Response
from scrapy.settings import BaseSettings

from crawler.downloader import site_of
from crawler.run import LiveRun


class SpacedRetryMiddleware(RetryMiddleware):
    """Scrapy's rules, settings and meta keys. Before each repeat it waits; other requests go on meanwhile."""

    def __init__(self, settings: BaseSettings, run: LiveRun) -> None:
        super().__init__(settings)
        self._run = run
        self._delay_seconds = run.configuration.retry_delay_seconds

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of this crawl; raise NotConfigured if RETRY_ENABLED is off."""
        middleware = cls(crawler.settings, LiveRun.of(crawler))
        middleware.crawler = crawler
        return middleware

    async def process_response(  # type: ignore[override]
        self, request: Request, response: Response
    ) -> Request | Response:
        """Return the answer, or after the wait the request that repeats it."""
        if self._run.holds.is_closed(site_of(request)):
            # There is nothing to repeat it for: the site has said when it wants to be asked again.
            return response
        outcome = super().process_response(request, response)
        if outcome is not response:
            await self._wait()
        return outcome

    async def process_exception(  # type: ignore[override]
        self, request: Request, exception: Exception
    ) -> Request | Response | None:
        """Return None, or after the wait the request that repeats what failed."""
        outcome = super().process_exception(request, exception)
        if outcome is not None:
            await self._wait()
        return outcome

    async def _wait(self) -> None:
        if self._delay_seconds:
            # Wakes when the process is told to stop.
            await self._run.sleep(self._delay_seconds)
