"""The two crawls that are measured: listing pages of 20 items, pages of an API with 50."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import JsonResponse, Response

from bench.catalogue import Product

# As many as Scrapy requests at once by default.
PAGES_IN_FLIGHT = 16


class PagesSpider(Spider):
    """Numbers ``first`` to ``first + pages``, each page leading to a later one, as paginations do."""

    page_name = ""

    def __init__(self, site: str, pages: str, first: str = "0") -> None:
        super().__init__()
        self.site = site
        self.numbers = range(int(first), int(first) + int(pages))

    async def start(self) -> AsyncIterator[Request]:
        for number in self.numbers[:PAGES_IN_FLIGHT]:
            yield self.page(number)

    def page(self, number: int) -> Request:
        return Request(f"{self.site}{number}/{self.page_name}", cb_kwargs={"number": number})

    def parse(self, response: Response, number: int) -> Iterator[Product | Request]:
        yield from self.products(response)
        if number + PAGES_IN_FLIGHT in self.numbers:
            yield self.page(number + PAGES_IN_FLIGHT)

    def products(self, response: Response) -> Iterator[Product]:
        raise NotImplementedError


class ListingSpider(PagesSpider):
    """HTML."""

    name = "listing"
    page_name = "page.html"

    def products(self, response: Response) -> Iterator[Product]:
        for pod in response.css("article.product"):
            link = pod.css("h3 a")
            price = pod.css("p.price")
            yield Product(
                url=response.urljoin(link.attrib["href"]),
                sku=pod.attrib["data-sku"],
                title=link.css("::text").get(""),
                price=float(price.css("::text").get("")),
                currency=price.attrib["data-currency"],
                in_stock=pod.css("p.stock::text").get() == "In stock",
                rating=float(pod.css("p.rating b::text").get("")),
                reviews=int(pod.css("span.reviews::text").get("")),
                category=pod.css("p.category::text").get(""),
                description=pod.css("p.description::text").get(""),
            )


class ApiSpider(PagesSpider):
    """JSON."""

    name = "api"
    page_name = "page.json"

    def products(self, response: Response) -> Iterator[Product]:
        assert isinstance(response, JsonResponse)
        rows: list[dict[str, Any]] = response.json()["products"]
        for row in rows:
            yield Product(
                url=response.urljoin(row["href"]),
                sku=row["sku"],
                title=row["title"],
                price=row["price"]["amount"],
                currency=row["price"]["currency"],
                in_stock=bool(row["stock"]),
                rating=row["rating"]["average"],
                reviews=row["rating"]["count"],
                category=row["category"],
                description=row["description"],
            )
