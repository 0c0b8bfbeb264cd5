"""What fails for good is counted, kept for later runs of the source, and tried again by them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError, HttpErrorMiddleware

from crawler import failures, stats
from crawler.downloader import site_of
from crawler.exceptions import RequestLost, RequestRefused
from crawler.failures import Failure
from crawler.memory.failed_requests import Failed, FailedRequest, Held, Outcome, Settled
from crawler.memory.failed_requests_keeper import FailedRequestsKeeper
from crawler.pages import REFUSED, SettledPage
from crawler.reactor import call_soon
from crawler.request_json import KEY_META, RequestJson
from crawler.run import LiveRun
from crawler.signals import page_settled, request_failed, site_held

logger = logging.getLogger(__name__)

# A card may be slow; the crawl waits for it once. A stop has an end.
_OPEN_SECONDS = 30.0
_FLUSH_SECONDS = 2.0


class PageChallenged(HttpError):
    """A challenge in the place of a page, with the status of a page."""


class FailedRequestMiddleware(HttpErrorMiddleware):
    """In the place of Scrapy's HttpErrorMiddleware: it, too, decides which answers the callback gets to see.

    A request is known by its key: what is asked for, and the callback it is for. Whoever asks for the same
    settles it: the run that tries it again, or a later one that has found it anew.
    """

    def __init__(self, crawler: Crawler, keeper: FailedRequestsKeeper) -> None:
        super().__init__(crawler.settings)
        self.crawler = crawler
        self._run = LiveRun.of(crawler)
        self._keeper = keeper
        self._keys: set[str] = set()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of this crawl, connected to its signals."""
        run = LiveRun.of(crawler)
        keeper = FailedRequestsKeeper(
            run.configuration.failed_requests_path,
            run.source,
            lambda outcome, lost: _tell_reactor(middleware._count, outcome, lost),
        )
        middleware = cls(crawler, keeper)
        crawler.signals.connect(middleware.request_failed, request_failed)
        crawler.signals.connect(middleware.request_dropped, signals.request_dropped)
        crawler.signals.connect(middleware.page_settled, page_settled)
        crawler.signals.connect(middleware.site_held, site_held)
        crawler.signals.connect(middleware.spider_closed, signals.spider_closed)
        # The last pages settle while the spider closes.
        crawler.signals.connect(middleware.engine_stopped, signals.engine_stopped)
        return middleware

    # -- what earlier runs left ----------------------------------------------------------------

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Hand on the spider's own requests, and between them those that are due again.

        They stay in the ledger: only a safe page takes them out.
        """
        due = iter(await self._take_over())
        async for own in start:
            yield own
            request = next(due, None)
            if request is not None:
                yield request
        for request in due:
            yield request

    async def _take_over(self) -> list[Request]:
        try:
            answer = asyncio.wrap_future(self._keeper.open())
            handover = await asyncio.wait_for(answer, _OPEN_SECONDS)
        except TimeoutError:
            logger.warning(
                "The failed requests of earlier runs are left out: not read after %d s; check the card",
                _OPEN_SECONDS,
            )
            return []
        self._keys.update(handover.keys)
        for hold in handover.holds:
            self._run.holds.hold(hold.site, hold.until - time.time())
        requests = [request for failed in handover.due if (request := self._remade(failed)) is not None]
        if requests:
            logger.info("%d requests that failed in earlier runs are tried again", len(requests))
            self.crawler.stats.inc_value(stats.FAILED_REQUESTS_RETRIED, len(requests))
        return requests

    def _remade(self, failed: FailedRequest) -> Request | None:
        try:
            request = self._form.load(failed.request)
        except RequestLost as error:
            logger.warning("A failed request is dropped, %s: %s", failed.url, error)
            self._give_up(failed.key)
            return None
        # What the run has asked for by itself it does not ask for twice: Scrapy's filter of duplicates
        # decides, and whichever of the two comes through settles the other.
        request.meta.update({KEY_META: failed.key, "allow_offsite": True})
        request.meta.setdefault("is_start_request", False)
        return request

    # -- what fails ----------------------------------------------------------------------------

    def process_spider_input(self, response: Response, spider: Spider | None = None) -> None:
        """Let through what is for the callback. Raise HttpError for any other answer, once it is counted."""
        try:
            super().process_spider_input(response)
        except HttpError:
            self._refuse(response, failures.of_response(response.status, response.headers, _head(response)))
            raise
        if response.status < 300 and failures.of_challenge(response.headers, _head(response)):
            self._refuse(response, Failure.CHALLENGED)
            raise PageChallenged(response, "A challenge instead of a page")

    def request_failed(self, request: Request, exception: Exception) -> None:
        """No answer came. If a component ignored the request on purpose, it is done with."""
        failure = failures.of_exception(exception)
        if failure is not None:
            self._note(request, failure)
        elif isinstance(exception, IgnoreRequest):
            self._settle(request)

    def request_dropped(self, request: Request, spider: Spider) -> None:
        """Scrapy's filter of duplicates took a redirect for a page that the run has asked for already."""
        redirected = request.meta.get("redirect_urls", ())
        if request.url in redirected:
            self._note(request, Failure.REDIRECTS)
        elif redirected:
            for key in self._known(request):
                self._give_up(key)

    def site_held(self, site: str, seconds: float) -> None:
        """A site wants to be left alone for long: the next runs are to know it, too."""
        self._keeper.put(Held(site, time.time() + seconds))

    def page_settled(self, request: Request | None, page: SettledPage) -> None:
        """A page is safe, or it is not: what is in the ledger then stays, for it may not be found again."""
        if request is None:
            return
        if page.is_seen:
            self._settle(request)
        elif known := self._known(request):
            self._fail(known, request, Failure.UNFINISHED, None)

    def _refuse(self, response: Response, failure: Failure) -> None:
        response.flags.append(REFUSED)
        assert response.request is not None
        self._note(response.request, failure)

    def _note(self, request: Request, failure: Failure) -> None:
        """Count a failure and decide what becomes of its request."""
        self.crawler.stats.inc_value(stats.failure(failure.kind, failure.reason))
        known = self._known(request)
        if failure.is_final:
            for key in known:
                self._give_up(key)
        elif known:
            self._fail(known, request, failure, None)
        else:
            self._keep(request, failure)

    def _keep(self, request: Request, failure: Failure) -> None:
        try:
            self._fail([self._key(request)], request, failure, self._form.dump(request))
        except RequestRefused as error:
            if not self.crawler.stats.get_value(stats.FAILED_REQUESTS_NOT_KEPT):
                logger.warning(
                    "A failed request cannot be kept for later runs; further ones are only counted: %s", error
                )
            self.crawler.stats.inc_value(stats.FAILED_REQUESTS_NOT_KEPT)

    def _fail(self, keys: list[str], request: Request, failure: Failure, text: str | None) -> None:
        seconds = self._run.holds.seconds_left(site_of(request))
        self._keys.update(keys)
        for key in keys:
            self._keeper.put(
                Failed(
                    key,
                    request.url,
                    text,
                    failure.kind,
                    failure.reason,
                    not_before=time.time() + seconds if seconds else None,
                    was_tried=failure is not Failure.HELD_BACK,
                )
            )

    def _settle(self, request: Request) -> None:
        for key in self._known(request):
            self.crawler.stats.inc_value(stats.FAILED_REQUESTS_RECOVERED)
            self._take_out(key)

    def _give_up(self, key: str) -> None:
        self.crawler.stats.inc_value(stats.FAILED_REQUESTS_GIVEN_UP)
        self._take_out(key)

    def _take_out(self, key: str) -> None:
        self._keys.discard(key)
        self._keeper.put(Settled(key))

    # -- keys ----------------------------------------------------------------------------------

    @cached_property
    def _form(self) -> RequestJson:
        assert self.crawler.spider is not None
        return RequestJson(self.crawler.spider, self.crawler.settings)

    def _key(self, request: Request) -> str:
        callback = "parse" if request.callback is None else getattr(request.callback, "__name__", "")
        return f"{self.crawler.request_fingerprinter.fingerprint(request).hex()}:{callback}"

    def _known(self, request: Request) -> list[str]:
        """Return the keys in the ledger that an outcome of this request settles.

        A redirected request is another one than was asked for. Its first address, and the key it has
        carried since, count only then: a spider may copy a page's meta into requests for other pages.
        """
        if not self._keys:
            return []
        keys = [self._key(request)]
        if redirected := request.meta.get("redirect_urls"):
            keys.append(self._key(request.replace(url=redirected[0])))
            given = str(request.meta.get(KEY_META, ""))
            if given.rpartition(":")[2] == keys[0].rpartition(":")[2]:
                keys.append(given)
        return [key for key in dict.fromkeys(keys) if key in self._keys]

    # -- the end -------------------------------------------------------------------------------

    async def spider_closed(self, spider: Spider) -> None:
        """Bring the counts of what is known by now into the crawl's stats."""
        await self._flush()

    async def engine_stopped(self) -> None:
        """Nothing more will come."""
        await self._flush(is_last=True)

    async def _flush(self, *, is_last: bool = False) -> None:
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._keeper.flush(is_last=is_last)), _FLUSH_SECONDS)
        except TimeoutError:
            logger.warning("What failed last may not be kept for later runs: the card does not answer")

    def _count(self, outcome: Outcome, lost: int) -> None:
        for name, number in (
            (stats.FAILED_REQUESTS_KEPT, outcome.kept),
            (stats.FAILED_REQUESTS_GIVEN_UP, outcome.expired),
            (stats.FAILED_REQUESTS_PUSHED_OUT, outcome.pushed_out),
            (stats.FAILED_REQUESTS_NOT_KEPT, lost),
        ):
            if number:
                self.crawler.stats.inc_value(name, number)


def _head(response: Response) -> bytes:
    return response.body[: failures.HEAD_BYTES]


def _tell_reactor(count: Callable[[Outcome, int], None], outcome: Outcome, lost: int) -> None:
    # After the reactor has stopped nobody reads the stats.
    with suppress(RuntimeError):
        call_soon(count, outcome, lost)
