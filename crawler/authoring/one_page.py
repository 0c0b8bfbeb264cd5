"""One page of a site, fetched as a crawl would: robots.txt, USER_AGENT, redirects, compression."""

from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request, Spider
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.utils.datatypes import SequenceExclude
from twisted.python.failure import Failure

from crawler.exceptions import PageRefused, PageUnreachable

# For robots.txt and for the page each. Nothing is tried twice: somebody waits for it.
ANSWER_SECONDS = 15
MAX_BYTES = 8 * 1024 * 1024
_REDIRECTS = 5

# No component of the project's: they would open the state folder.
_ONE_PAGE: dict[str, Any] = {
    "ITEM_PIPELINES": {},
    "EXTENSIONS": {},
    "SPIDER_MIDDLEWARES": {},
    "DOWNLOADER_MIDDLEWARES": {},
    "ROBOTSTXT_OBEY": True,
    "RETRY_ENABLED": False,
    "REDIRECT_MAX_TIMES": _REDIRECTS,
    "DOWNLOAD_MAXSIZE": MAX_BYTES,
    "LOG_ENABLED": False,
    "LOG_INSTALL_ROOT_HANDLER": False,
}


def fetch(url: str, settings: Settings, spidercls: type[Spider] = Spider) -> Response:
    """Given an address, return its page, decompressed, from where redirects have led.

    The settings are the project's with those of the spider. Can be called once in a process, whose
    reactor it starts and stops. Raise PageUnreachable if nobody answers, PageRefused if robots.txt or
    the answer says no.
    """
    # Only now: it installs the reactor.
    from scrapy.crawler import AsyncCrawlerProcess

    own = settings.copy()
    spidercls.update_settings(own)
    own.setdict(_ONE_PAGE, priority="cmdline")
    own.set("DOWNLOAD_TIMEOUT", min(own.getfloat("DOWNLOAD_TIMEOUT"), ANSWER_SECONDS), priority="cmdline")
    outcomes: list[Response | Failure] = []

    class OnePageSpider(Spider):
        name = "one_page"

        async def start(self) -> AsyncIterator[Request]:
            # Redirects are followed; every other answer is wanted as it is.
            meta = {"handle_httpstatus_list": SequenceExclude(range(300, 400))}
            yield Request(url, outcomes.append, errback=outcomes.append, meta=meta, dont_filter=True)

    process = AsyncCrawlerProcess(own)
    process.crawl(OnePageSpider)
    process.start()
    return _accepted(url, outcomes[0] if outcomes else None)


def _accepted(url: str, outcome: Response | Failure | None) -> Response:
    if isinstance(outcome, Response):
        if outcome.status != 200:
            raise PageRefused(
                f"{outcome.url} answers {outcome.status}; allowed: an address that answers 200. "
                "Open it in a browser"
            )
        return outcome
    if outcome is None:
        raise PageUnreachable(f"{url} was not fetched: interrupted")
    reason = outcome.getErrorMessage().rstrip(".") or type(outcome.value).__name__
    if isinstance(outcome.value, IgnoreRequest):
        raise PageRefused(
            f"{url} is not to be fetched: {reason}. Allowed: what robots.txt leaves open to this crawler. "
            "Choose another page of the site, or ask its owner"
        )
    raise PageUnreachable(f"{url} cannot be reached: {reason}")
