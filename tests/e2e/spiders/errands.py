"""Pages that are asked for once, by address alone: what a run fails to fetch, no later run finds again."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response

RAISES = b"the callback raises"


@dataclass
class Errand:
    number: int
    text: str
    note: list[int]
    header: str
    url: str


class ErrandsSpider(Spider):
    """``paths`` of the site, separated by blanks; everything an item says comes from its request."""

    name = "errands"
    key = "number"

    def __init__(self, base_url: str, paths: str = "", first: str = "0", **given: str) -> None:
        super().__init__()
        self.base_url = base_url
        self.paths = paths.split()
        self.first = int(first)
        self.has_slot_each = given.get("slot_each") == "1"
        self.is_unfaithful = given.get("unfaithful") == "1"

    async def start(self) -> AsyncIterator[Request]:
        for number, path in enumerate(self.paths, self.first):
            yield self.request(number, path)

    def request(self, number: int, path: str) -> Request:
        meta: dict[str, Any] = {"note": (number,) if self.is_unfaithful else [number]}
        if self.has_slot_each:
            meta["download_slot"] = str(number)
        return Request(
            self.base_url + path,
            self.parse_errand,
            headers={"X-Errand": str(number)},
            meta=meta,
            errback=self.failed,
            cb_kwargs={"number": number, "text": f"errand {number}"},
        )

    def parse_errand(self, response: Response, number: int, text: str) -> Iterator[Errand]:
        if response.body == RAISES:
            raise ZeroDivisionError("as the page says")
        header = response.request.headers["X-Errand"] if response.request else None
        yield Errand(number, text, response.meta["note"], (header or b"").decode(), response.url)

    def failed(self, failure: Any) -> None:
        self.logger.info("errback of %s: %s", failure.request.url, type(failure.value).__name__)


class RemindersSpider(ErrandsSpider):
    """Errands whose pages are asked whether they have changed."""

    name = "reminders"
    revisit = "if-changed"
