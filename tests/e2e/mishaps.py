"""What befalls the items of tests.e2e.spiders.shelf, and page memories that do not wait for them."""

from collections.abc import AsyncIterator
from typing import Any, Self

import scrapy_deltafetch
from itemadapter import ItemAdapter
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.http import Response

from crawler.memory import page_memory
from crawler.middlewares.conditional import ConditionalGet
from crawler.pages import SettledPage
from tests.e2e.spiders.shelf import luck_of


class Mishaps:
    """In front of delivery: drops the stock of the books of fate 2, and raises for that of fate 3."""

    def process_item(self, item: Any) -> Any:
        upc = ItemAdapter(item)["upc"]
        if upc.endswith("-stock") and luck_of(upc) == 2:
            raise DropItem("of fate 2")
        if upc.endswith("-stock") and luck_of(upc) == 3:
            raise ZeroDivisionError("of fate 3")
        return item


class PlainDeltaFetch(scrapy_deltafetch.DeltaFetch):  # type: ignore[misc]
    """scrapy-deltafetch as it comes, with the least that makes it load on this Scrapy."""

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        async for output in result:
            for kept in super().process_spider_output(response, [output], None):
                yield kept


class HastyConditionalGet(ConditionalGet):
    """Remembers a page when its answer arrives, and writes it at once."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        page_memory.BATCH_PAGES = 1
        return super().from_crawler(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        response = super().process_response(request, response)
        visit = self._visits.get(request)
        # So much it knows: which addresses are listings.
        if visit is not None and visit.answer is not None and "/index.html" in request.url:
            self._memory.note(self._fingerprint(request), visit.answer.as_facts())
        return response

    def page_settled(self, request: Request | None, page: SettledPage) -> None:
        """Too late for this one: it has been noted."""
