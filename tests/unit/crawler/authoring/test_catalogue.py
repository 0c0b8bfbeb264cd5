"""What a source says of itself comes from its class, and the page about it from that."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import scrapy
from scrapy import Request
from scrapy.http import Response
from scrapy.settings import Settings

from crawler.authoring.catalogue import described, item_fields, page_of
from crawler.source import SourceSpider


@dataclass
class Part:
    """Held by an item, yielded by nobody."""

    number: int


@dataclass
class Thing:
    code: str
    price: Decimal | None
    parts: list[Part]


class Offer(scrapy.Item):
    code = scrapy.Field()


class ShopSpider(SourceSpider):
    """Everything that the shop sells;
    ``price`` is in crowns.

    Site: https://shop.example/.
    Refresh: daily,
    at night.

    Robots: all is open.
    Caveats: none.

    A note that is no term.
    """

    name = "shop"
    base_url = "https://shop.example/"
    key = ("code", "price")
    keep = "every"
    spool_first = True
    schedule = "17 4 * * *"
    custom_settings = {"DOWNLOAD_DELAY": 2.5}  # noqa: RUF012

    def parse_list(self, response: Response) -> Iterator[Request | Thing]:
        raise NotImplementedError

    def parse_offer(self, response: Response) -> Iterator[Offer]:
        raise NotImplementedError

    def other(self, response: Response) -> Iterator[Part]:
        raise NotImplementedError


def test_a_source_is_described_by_its_class() -> None:
    source = described(ShopSpider, Settings())
    assert source.summary == "Everything that the shop sells; ``price`` is in crowns."
    assert source.terms == {
        "Site": "https://shop.example/.",
        "Refresh": "daily, at night.",
        "Robots": "all is open.",
        "Caveats": "none.",
    }
    assert (source.key, source.keep, source.spool_first) == (["code", "price"], "every", True)
    assert (source.schedule, source.delay_seconds) == ("17 4 * * *", 2.5)


def test_its_items_are_what_callbacks_say_they_yield() -> None:
    assert item_fields(ShopSpider) == {
        "Offer": {"code": "any"},
        "Thing": {"code": "str", "price": "Decimal | None", "parts": "list[Part]"},
    }


def test_the_page_has_what_an_operator_asks() -> None:
    page = page_of([described(ShopSpider, Settings())])
    assert "| [shop](#shop) | https://shop.example/ | `17 4 * * *` | `code`, `price` | 2.5 s |" in page
    assert "- **Refresh**: daily, at night." in page
    assert "- **Schedule**: At 04:17 every day (`17 4 * * *`)." in page
    assert "One for each observation of a thing, which is named by `code` and `price`." in page
    assert "They reach the card before the NAS." in page
    assert "| `price` | Decimal \\| None |" in page
    assert "- **Pages**: read again by a later run if" in page
    assert "``" not in page


def test_a_source_that_is_not_scheduled_says_so() -> None:
    class QuietSpider(ShopSpider):
        """Nothing."""

        schedule = ""

    page = page_of([described(QuietSpider, Settings())])
    assert "| by hand |" in page
    assert "**Schedule**" not in page
