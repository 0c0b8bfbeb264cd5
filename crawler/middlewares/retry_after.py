"""Retry-After: a site that asks to be left alone is, with all of its requests, and no other site is."""

import logging
import time
from typing import Self

from scrapy import Request, Spider, signals
from scrapy.core.downloader import Slot
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from crawler.downloader import site_of
from crawler.failures import Failure
from crawler.politeness.holds import SiteHolds
from crawler.politeness.retry_after import wait_seconds
from crawler.run import LiveRun
from crawler.signals import site_held

logger = logging.getLogger(__name__)

# RFC 6585 and RFC 9110: the answers whose Retry-After says when to ask again.
_TOO_MANY_REQUESTS, _UNAVAILABLE = 429, 503
# Scrapy looks at the time of the last request only in slots with a delay.
_SHORTEST_DELAY_SECONDS = 0.001


class SiteHeldBack(IgnoreRequest):
    """The request was not sent: its site asked to be left alone for longer than a crawl waits."""

    failure = Failure.HELD_BACK


class RetryAfterMiddleware:
    """Hears every answer before Scrapy takes the next request from the site's queue."""

    def __init__(self, crawler: Crawler, holds: SiteHolds, usual_seconds: float) -> None:
        """Given a crawl, its holds, and how long a 429 without Retry-After is to be heeded."""
        self._crawler = crawler
        self._holds = holds
        self._usual_seconds = usual_seconds

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of this crawl, connected to its signals."""
        run = LiveRun.of(crawler)
        middleware = cls(crawler, run.holds, run.configuration.retry_delay_seconds)
        crawler.signals.connect(middleware.response_downloaded, signals.response_downloaded)
        crawler.signals.connect(middleware.request_reached_downloader, signals.request_reached_downloader)
        return middleware

    def process_request(self, request: Request) -> None:
        """Raise SiteHeldBack for a request that the site does not want and that is not to wait."""
        site = site_of(request)
        if self._holds.is_closed(site):
            raise self._refusal(site)

    def request_reached_downloader(self, request: Request, spider: Spider) -> None:
        """A request joins the queue of its site: the queue may be new, and the hold older."""
        seconds = self._holds.seconds_left(site_of(request))
        if seconds:
            self._hold_slot(site_of(request), seconds)

    def response_downloaded(self, response: Response, request: Request, spider: Spider) -> None:
        """Heed what the site asks for. Its next request is sent after this returns."""
        site = site_of(request)
        if response.status < 400:
            self._holds.answered(site)
            return
        seconds = self._wish_of(response)
        if seconds:
            self._heed(site, seconds)

    def _wish_of(self, response: Response) -> float | None:
        if response.status not in (_TOO_MANY_REQUESTS, _UNAVAILABLE):
            return None
        value = response.headers.get("Retry-After")
        seconds = None
        if value is not None:
            seconds = wait_seconds(value, date=response.headers.get("Date"), now=time.time())
        if seconds is None and response.status == _TOO_MANY_REQUESTS:
            return self._usual_seconds
        return seconds

    def _heed(self, site: str, seconds: float) -> None:
        was_closed = self._holds.is_closed(site)
        self._holds.hold(site, seconds)
        seconds = self._holds.seconds_left(site)
        if not self._holds.is_closed(site):
            logger.info("The site %s asks to be left alone for %.0f s: its requests wait", site, seconds)
            self._hold_slot(site, seconds)
            return
        if not was_closed:
            logger.warning(
                "The site %s asks to be left alone for %.0f s, longer than a crawl waits: what is yet to be "
                "fetched from it is left to later runs (`scrapy failed list`)",
                site,
                seconds,
            )
        self._crawler.signals.send_catch_log(site_held, site=site, seconds=seconds)
        self._empty_slot(site)

    def _refusal(self, site: str) -> SiteHeldBack:
        return SiteHeldBack(f"{site} asked to be left alone for {self._holds.seconds_left(site):.0f} s more")

    def _slot(self, site: str) -> Slot | None:
        return self._crawler.engine.downloader.slots.get(site)

    def _hold_slot(self, site: str, seconds: float) -> None:
        """Send nothing of the site's queue until then: as if its last request were sent so late."""
        slot = self._slot(site)
        if slot is not None:
            slot.lastseen = max(slot.lastseen, time.monotonic() + seconds)
            slot.delay = max(slot.delay, _SHORTEST_DELAY_SECONDS)

    def _empty_slot(self, site: str) -> None:
        """Turn back the requests that already wait in the site's queue."""
        slot = self._slot(site)
        while slot is not None and slot.queue:
            _request, outcome = slot.queue.popleft()
            outcome.errback(self._refusal(site))
