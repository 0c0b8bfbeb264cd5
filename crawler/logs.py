"""What a crawl writes to its log: no item bodies, and no record that nobody will read."""

from typing import Any

from scrapy import Spider
from scrapy.http import Response
from scrapy.logformatter import LogFormatter, LogFormatterResult
from twisted.python.failure import Failure


class QuietLogFormatter(LogFormatter):
    """Scrapy's messages without those per page and per item, and without items in any of them.

    Scrapy builds a record per page and per item even when the log level drops it: 3 % of a crawl.
    """

    def crawled(self, *_args: Any, **_kwargs: Any) -> LogFormatterResult | None:  # type: ignore[override]
        """Say nothing: pages are counted in the stats."""
        return None

    def scraped(self, *_args: Any, **_kwargs: Any) -> LogFormatterResult | None:  # type: ignore[override]
        """Say nothing: items are counted in the stats."""
        return None

    def dropped(
        self, item: Any, exception: BaseException, response: Response | Failure | None, spider: Spider
    ) -> LogFormatterResult:
        """Say why, not what: an item may be megabytes, or private."""
        return self._without_item(super().dropped(item, exception, response, spider))

    def item_error(
        self, item: Any, exception: BaseException, response: Response | Failure | None, spider: Spider
    ) -> LogFormatterResult:
        """Say that an item failed; the traceback says why."""
        return self._without_item(super().item_error(item, exception, response, spider))

    @staticmethod
    def _without_item(result: LogFormatterResult) -> LogFormatterResult:
        args = result["args"]
        if isinstance(args, dict) and "item" in args:
            args["item"] = f"<{type(args['item']).__name__}>"
        return result
