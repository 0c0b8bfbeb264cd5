"""Scrapy's downloader, with one queue per site, and a word about every request that failed for good."""

from typing import Any

from scrapy import Request, Spider
from scrapy.core.downloader import Downloader as ScrapyDownloader
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.httpobj import urlparse_cached
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from crawler import signals


def site_of(request: Request) -> str:
    """Return the name of the site a request is for: its host."""
    return urlparse_cached(request).hostname or ""


class Downloader(ScrapyDownloader):
    """Named in the setting DOWNLOADER."""

    def get_slot_key(self, request: Request) -> str:
        """Return the site, whatever ``download_slot`` says: a queue of its own would step around the pause.

        A redirect to another site copies the meta of the first, where Scrapy has noted the first one's slot.
        """
        return site_of(request)

    def fetch(self, request: Request, spider: Spider | None = None) -> "Deferred[Response | Request]":
        """Download; if neither an answer nor a retry comes of it, send ``signals.request_failed``.

        No middleware hears of it all: what the ``process_response`` of one raises, a redirect loop or a body
        that cannot be decompressed, no ``process_exception`` gets to see.
        """
        outcome: Deferred[Any] = super().fetch(request)
        return outcome.addErrback(self._tell, request)

    def _tell(self, failure: Failure, request: Request) -> Failure:
        # Whoever asks without a callback, as for robots.txt, deals with the failure himself.
        if request.callback is not NO_CALLBACK:
            self.signals.send_catch_log(signals.request_failed, request=request, exception=failure.value)
        return failure
