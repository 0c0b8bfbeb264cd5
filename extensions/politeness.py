"""AutoThrottle per site, with a pause that neither it nor a spider's settings undercut."""

import logging
from typing import Any, Self

from scrapy import Request, Spider, signals
from scrapy.core.downloader import Slot
from scrapy.crawler import Crawler
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.robotstxt import RobotParser

from crawler.downloader import site_of
from crawler.politeness.pace import LONGEST_CRAWL_DELAY_SECONDS, at_least, crawl_delay_seconds, is_here
from crawler.run import LiveRun

logger = logging.getLogger(__name__)


class Politeness(AutoThrottle):
    """The least pause of a site is what its robots.txt asks for, or the operator's floor, if that is longer.

    Without AUTOTHROTTLE_ENABLED it only sees to that.
    """

    def __init__(self, crawler: Crawler, floor_seconds: float) -> None:
        """Given the crawl and the shortest pause between two requests to one site, connect its signals."""
        self.crawler = crawler
        self._floor_seconds = floor_seconds
        self._asked_seconds: dict[str, float] = {}
        if crawler.settings.getbool("AUTOTHROTTLE_ENABLED"):
            super().__init__(crawler)
        crawler.signals.connect(self._request_reached_downloader, signals.request_reached_downloader)
        crawler.signals.connect(self._robots_parsed, signals.robots_parsed)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the extension of this crawl."""
        return cls(crawler, LiveRun.of(crawler).configuration.politeness_floor_seconds)

    def least_seconds(self, site: str) -> float:
        """Return the shortest pause between two requests to a site."""
        floor = 0.0 if is_here(site) else self._floor_seconds
        return max(floor, self._asked_seconds.get(site, 0.0))

    def _request_reached_downloader(self, request: Request, spider: Spider) -> None:
        """A request joins the queue of its site, which may be new and still have the spider's delay."""
        self._slow_down(request, spider)

    def _response_downloaded(self, response: Response, request: Request, spider: Spider) -> None:
        # Scrapy takes the next request from the queue after this, by the delay it then finds.
        super()._response_downloaded(response, request, spider)
        self._slow_down(request, spider)

    def _slow_down(self, request: Request, spider: Spider) -> None:
        _key, slot = self._get_slot(request, spider)
        if slot is not None:
            self._apply(slot, self.least_seconds(site_of(request)))

    @staticmethod
    def _apply(slot: Slot, least_seconds: float) -> None:
        slot.delay, slot.jitter = at_least(least_seconds, slot.delay, slot.jitter)

    def _robots_parsed(self, robotparser: RobotParser, request: Request) -> None:
        """Remember what the site's robots.txt asks of this crawler."""
        settings = self.crawler.settings
        name = settings["ROBOTSTXT_USER_AGENT"] or settings["USER_AGENT"]
        seconds = crawl_delay_seconds(robotparser.crawl_delay(name), _request_rate(robotparser, name))
        site = site_of(request)
        if seconds > self.least_seconds(site):
            self._asked_seconds[site] = seconds
            logger.info("The robots.txt of %s asks for %.1f s between two requests", site, seconds)
        if seconds == LONGEST_CRAWL_DELAY_SECONDS:
            logger.warning(
                "The robots.txt of %s asks for an hour or more between two requests: a crawl of it is "
                "hardly of use",
                site,
            )


def _request_rate(robotparser: Any, user_agent: str) -> float | None:
    """Return the seconds per request of a Request-rate, which of Scrapy's parsers only Protego reads."""
    read = getattr(getattr(robotparser, "rp", None), "request_rate", None)
    rate = read(user_agent) if read else None
    return rate.seconds / rate.requests if rate and rate.requests else None
