"""books.toscrape.com: the catalogue of a bookshop made for crawlers to practise on."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal

from scrapy import Request
from scrapy.http import Response

from crawler.source import SourceSpider

RATINGS = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}


@dataclass
class Book:
    url: str
    upc: str
    title: str | None
    price: Decimal
    currency: str
    available: int
    rating: int | None
    category: str | None
    description: str | None
    image_url: str | None


class BooksSpider(SourceSpider):
    """Every book of the shop, with its price and stock.

    Site: https://books.toscrape.com/, 50 listing pages of 20 books, one page per book.
    Refresh: daily is plenty; the shop hardly ever changes.
    Robots: the site publishes none and invites crawling; the delay below is courtesy.
    Caveats: the key is the shop's product code, not the address: an address contains a slug of the
    title, and two books share a title. Some books have no description. Prices are sterling.
    """

    name = "books"
    base_url = "https://books.toscrape.com/"
    key = "upc"
    schedule = "17 4 * * *"
    custom_settings = {"DOWNLOAD_DELAY": 0.5, "CONCURRENT_REQUESTS_PER_DOMAIN": 2}

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.base_url, self.parse_listing)

    def parse_listing(self, response: Response) -> Iterator[Request]:
        books = response.css("article.product_pod h3 a::attr(href)").getall()
        following = response.css("li.next a::attr(href)").getall()
        yield from response.follow_all(books, self.parse_book)
        yield from response.follow_all(following, self.parse_listing)

    def parse_book(self, response: Response) -> Iterator[Book]:
        main = response.css("div.product_main")
        rows = response.css("table.table-striped tr")
        facts = {row.css("th::text").get(): row.css("td::text").get("") for row in rows}
        price = facts["Price (excl. tax)"]
        stock = rows.css("td").re_first(r"\((\d+) available\)")
        image = response.css("#product_gallery img::attr(src)").get()
        yield Book(
            url=response.url,
            upc=facts["UPC"],
            title=main.css("h1::text").get(),
            price=Decimal(price.lstrip("£")),
            currency="GBP" if price.startswith("£") else "",
            available=int(stock or 0),
            rating=RATINGS.get(main.css("p.star-rating").re_first(r"star-rating (\w+)", "")),
            category=response.css("ul.breadcrumb li:nth-child(3) a::text").get(),
            description=response.css("#product_description + p::text").get(),
            image_url=response.urljoin(image) if image else None,
        )
