"""robots.txt, obeyed also by the requests that wait for it together."""

import asyncio
from collections import defaultdict

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.robotstxt import RobotParser
from scrapy.utils.httpobj import urlparse_cached


class PatientRobotsTxtMiddleware(RobotsTxtMiddleware):
    """Scrapy 2.19 gives what it has read to the first who waits for it, and lets all the others pass.

    They await one Deferred, whose result becomes None as soon as one of them has taken it.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the rules of the request's site once they are known; None if it has none."""
        async with self._reading[urlparse_cached(request).netloc]:
            return await super().robot_parser(request)
