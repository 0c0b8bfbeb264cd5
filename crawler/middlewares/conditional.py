"""``revisit = "if-changed"``: pages whose items are safe are asked whether they have changed."""

import inspect
import logging
import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self
from weakref import WeakKeyDictionary

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest, NotConfigured
from scrapy.http import Response

from crawler import stats
from crawler.items import represented
from crawler.memory.page_memory import Remembered
from crawler.memory.validators import (
    Version,
    change_between,
    conditions,
    context_of,
    digest,
    version_of,
)
from crawler.middlewares.crawl_memory import CrawlMemory
from crawler.pages import SettledPage
from crawler.signals import page_settled

logger = logging.getLogger(__name__)

RawHeaders = dict[bytes, list[bytes]]
"""Headers as Scrapy stores them: names in title case."""

ASKED_META = "conditional_get"
"""In a request's meta: the headers that were put into it here. Redirects and retries copy both."""
# A spider that sets one of these asks a question of its own.
_CONDITIONAL = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range")
_INCOMPLETE = {"partial", "dataloss"}
# Classes of these packages parse nothing, and change with every release.
_NOT_THE_SPIDERS = ("builtins", "scrapy", "crawler")


class NotModified(IgnoreRequest):
    """The page is as it was when its items were stored: there is nothing to parse, and nothing has failed."""


@dataclass(slots=True)
class Visit:
    """A request on its way: what its page is known by, and what to remember once its items are safe."""

    context: str
    headers: RawHeaders
    known: Remembered | None = None
    version: Version | None = None
    answer: Version | None = None


class ConditionalGet:
    """Asks, ends pages that are as they were, and remembers those whose items are safe.

    Stands between the spider and Scrapy's retries, redirects and decompression, so that it sees the
    answers a callback would see, with their bodies decoded.
    """

    def __init__(self, memory: CrawlMemory, crawler: Crawler, source: bytes) -> None:
        self._memory = memory
        self._crawler = crawler
        self._source = source
        self._fingerprint = crawler.request_fingerprinter.fingerprint
        self._visits: WeakKeyDictionary[Request, Visit] = WeakKeyDictionary()
        self._has_warned = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Return the middleware of a crawl that reads what has changed; else raise NotConfigured."""
        memory = CrawlMemory.for_revisit(crawler, "if-changed")
        try:
            source = source_of(crawler.spidercls)
        except (OSError, TypeError) as error:
            # Scrapy logs the reason.
            raise NotConfigured(
                f"the source of {crawler.spidercls.__name__} cannot be read ({error}), so that pages would "
                "not be read again after it was mended"
            ) from error
        middleware = cls(memory, crawler, source)
        crawler.signals.connect(middleware.page_settled, page_settled)
        return middleware

    async def process_request(self, request: Request) -> None:
        """Make the request conditional if its page is known and would be parsed as it was."""
        _take_back(request)
        context = self._context_of(request) if _may_be_asked(request) else None
        if context is None:
            return
        # The bare dictionary: to copy them as headers means to normalise every one again.
        visit = self._visits[request] = Visit(context, dict.copy(request.headers))
        visit.known = await self._memory.recall(self._fingerprint(request))
        visit.version = Version.from_facts(visit.known.facts) if visit.known else None
        if visit.version is not None and visit.version.context == context:
            _ask(request, conditions(visit.version, partial(_text, visit.headers)))

    def process_response(self, request: Request, response: Response) -> Response:
        """Hand on what is to be parsed. Raise NotModified for a page that is as it was."""
        visit = self._visits.get(request)
        if visit is None:
            return response
        if response.status == 304 and request.meta.get(ASKED_META):
            raise self._ended(request, stats.PAGES_NOT_MODIFIED)
        if response.status == 200 and not _INCOMPLETE & set(response.flags):
            visit.answer = self._answer(request, response, visit)
        return response

    def page_settled(self, request: Request | None, page: SettledPage) -> None:
        """Remember a page with items, all of them safe. A 304 would hide the links of any other."""
        visit = None if request is None else self._visits.pop(request, None)
        if request is None or visit is None or not page.is_seen:
            return
        if visit.answer is not None and page.items and not page.links:
            self._memory.note(self._fingerprint(request), visit.answer.as_facts())
        else:
            self._memory.forget(self._fingerprint(request))

    # -- judging answers -----------------------------------------------------------------------

    def _answer(self, request: Request, response: Response, visit: Visit) -> Version | None:
        """Return what to remember of a page that came whole. Raise NotModified if it is as it was."""
        fresh = version_of(
            response.body,
            visit.context,
            answered=partial(_text, dict.copy(response.headers)),
            asked=partial(_text, visit.headers),
            sent=partial(_text, dict.copy(request.headers)),
        )
        if fresh is None or visit.version is None:
            return fresh
        change = change_between(visit.version, fresh)
        if change == "content under the old tag":
            self._catch(request)
            return replace(fresh, is_trusted=False)
        fresh = replace(fresh, is_trusted=visit.version.is_trusted)
        if change == "none" and visit.version.context == visit.context:
            if fresh != visit.version and visit.known is not None:
                self._memory.note(self._fingerprint(request), fresh.as_facts(), read_at=visit.known.read_at)
            raise self._ended(request, stats.PAGES_SAME_CONTENT)
        return fresh

    def _ended(self, request: Request, stat: str) -> NotModified:
        self._crawler.stats.inc_value(stat)
        # Scrapy calls the errback of whatever does not reach the callback; but nothing failed.
        request.errback = None
        return NotModified(f"{request.url} is as it was when its items were stored")

    def _catch(self, request: Request) -> None:
        self._crawler.stats.inc_value(stats.PAGES_UNDER_OLD_TAG)
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s changed, but its site sent the ETag, or the date, of its former content. Such pages are "
                "no longer asked whether they have changed, but fetched; further ones are only counted",
                request.url,
            )

    # -- what items depend on ------------------------------------------------------------------

    def _context_of(self, request: Request) -> str | None:
        callback = "parse" if request.callback is None else getattr(request.callback, "__qualname__", "<>")
        # A lambda, or a function within one, has no name that says what it does.
        if "<" in callback:
            return None
        return context_of(callback, request.cb_kwargs, request.meta, self._program, represented)

    @cached_property
    def _program(self) -> str:
        """The hash of what parses: the spider's source, and the arguments it was given."""
        assert self._crawler.spider is not None
        return digest(self._source + repr(_arguments_of(self._crawler.spider)).encode(errors="replace"))


def _may_be_asked(request: Request) -> bool:
    return (
        request.method == "GET"
        and not request.body
        and request.url.startswith(("http://", "https://"))
        and request.meta.get("deltafetch_enabled", True)
        and not any(name in request.headers for name in _CONDITIONAL)
    )


def _ask(request: Request, fields: dict[str, str]) -> None:
    if fields:
        request.meta[ASKED_META] = fields
        for name, value in fields.items():
            # As the site sent them, byte for byte.
            request.headers[name] = value.encode("latin-1")


def _take_back(request: Request) -> None:
    """Undo ``_ask``: this request may be a copy, for another address or another attempt."""
    for name, value in request.meta.pop(ASKED_META, {}).items():
        if request.headers.get(name) == value.encode("latin-1"):
            del request.headers[name]


def _text(headers: RawHeaders, name: str) -> str | None:
    values = headers.get(name.title().encode())
    return ", ".join(value.decode("latin-1") for value in values) if values else None


def source_of(spidercls: type[Spider]) -> bytes:
    """Return the source of the spider's class and of those it is derived from. Raise OSError or TypeError."""
    modules = dict.fromkeys(cls.__module__ for cls in spidercls.__mro__)
    own = [name for name in modules if name.partition(".")[0] not in _NOT_THE_SPIDERS]
    return "".join(inspect.getsource(sys.modules[name]) for name in own).encode()


def _arguments_of(spider: Spider) -> list[tuple[str, Any]]:
    """Return what ``-a`` may have set: scrapyd's own names start with an underscore."""
    return sorted(
        (name, value)
        for name, value in vars(spider).items()
        if isinstance(value, str | int) and not name.startswith("_") and name != "deltafetch_reset"
    )
