"""A Scrapy request as JSON, and back: what a later run needs to make it again, and nothing else.

Never a pickle: what is read from the card must not be able to run code.
"""

import json
from base64 import b64decode, b64encode
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Headers
from scrapy.settings import BaseSettings

from crawler.exceptions import RequestLost, RequestRefused

MAX_BYTES = 64 * 1024
KEY_META = "failed_request"
"""In the meta of a request that an earlier run failed to make: its key. Redirects and retries copy it."""
# Scrapy's and the platform's notes about one download. What a spider put there itself is kept.
_NOTES = frozenset(
    {
        "_auth_proxy",
        "_dont_cache",
        "_scheme_proxy",
        "cache_timestamp",
        "conditional_get",
        "download_latency",
        "download_slot",
        KEY_META,
        "redirect_reasons",
        "redirect_times",
        "redirect_ttl",
        "redirect_urls",
        "retry_times",
    }
)
# Each run sets these anew, and an old validator would ask about another page than the run remembers.
_SET_ANEW = (b"Accept-Encoding", b"If-Modified-Since", b"If-None-Match")


class RequestJson:
    """Turns the requests of one spider into JSON and back."""

    def __init__(self, spider: Spider, settings: BaseSettings) -> None:
        """Given the spider whose methods the callbacks are, and the crawl's settings."""
        self._spider = spider
        self._usual_headers = Headers({"User-Agent": settings["USER_AGENT"]})
        self._usual_headers.update(settings.getdict("DEFAULT_REQUEST_HEADERS"))
        self._usual_timeout = settings.getfloat("DOWNLOAD_TIMEOUT")
        self._retry_priority = settings.getint("RETRY_PRIORITY_ADJUST")

    def dump(self, request: Request) -> str:
        """Return the request's JSON, at most ``MAX_BYTES`` of it.

        Raise RequestRefused if its callback is no method of the spider, or if a value would come back as
        something else: a tuple, an object, a key that is no text.
        """
        try:
            given = request.to_dict(spider=self._spider)
            fields = given | {
                "headers": self._headers(request),
                "body": b64encode(request.body).decode(),
                "meta": self._meta(request.meta),
                "priority": request.priority - self._retry_priority * request.meta.get("retry_times", 0),
            }
            # The subclasses of Request differ in how they make the body, which is made by now.
            fields = {name: fields[name] for name in _FIELDS}
            text = json.dumps(fields, allow_nan=False)
            is_same = json.loads(text) == fields
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestRefused(f"{request} has no JSON form: {error}") from error
        if not is_same:
            raise RequestRefused(f"{request} has a value in meta or cb_kwargs that JSON would change")
        if len(text) > MAX_BYTES:
            raise RequestRefused(f"{request} takes {len(text)} bytes; allowed: {MAX_BYTES}")
        return text

    def load(self, text: str) -> Request:
        """Given what ``dump`` returned, return the request. Raise RequestLost."""
        try:
            fields = json.loads(text)
            fields["body"] = b64decode(fields["body"])
            for name in ("callback", "errback"):
                fields[name] = self._method(fields[name])
            return Request(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise RequestLost(f"its text cannot be read: {error}") from error

    def _method(self, name: str | None) -> Any:
        if name is None:
            return None
        method = getattr(self._spider, name, None)
        if not callable(method):
            raise RequestLost(f"the spider {self._spider.name!r} has no method {name!r} any more")
        return method

    def _headers(self, request: Request) -> dict[str, list[str]]:
        given = {
            name: request.headers.getlist(name)
            for name in request.headers
            if request.headers.getlist(name) != self._usual_headers.getlist(name)
        }
        # The credentials of the environment's proxy are not the spider's.
        for name in (*_SET_ANEW, *([b"Proxy-Authorization"] if request.meta.get("_scheme_proxy") else [])):
            given.pop(name, None)
        return {name.decode("latin-1"): [value.decode("latin-1") for value in given[name]] for name in given}

    def _meta(self, meta: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in meta.items() if name not in _NOTES}
        if meta.get("_scheme_proxy"):
            kept.pop("proxy", None)
        if kept.get("download_timeout") == self._usual_timeout:
            del kept["download_timeout"]
        return kept


_FIELDS = (
    "url",
    "method",
    "headers",
    "body",
    "cookies",
    "meta",
    "encoding",
    "priority",
    "callback",
    "errback",
    "flags",
    "cb_kwargs",
)
