"""The bookshop with two items on each page, so that a page can be stored by half."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from scrapy.http import Response

from crawler.source import Revisit
from spiders.books import BooksSpider


@dataclass
class Stock:
    upc: str
    available: int
    price: Decimal


def luck_of(upc: str) -> int:
    """Return which of five fates a book has: its code without the word for its stock decides."""
    return int(upc.removesuffix("-stock"), 16) % 5


class ShelfSpider(BooksSpider):
    """With MISHAPS in the environment callbacks raise: those of fate 0 at once, of fate 1 half-way."""

    name = "shelf"

    def parse_book(self, response: Response) -> Iterator[Any]:
        [book] = super().parse_book(response)
        fate = luck_of(book.upc) if "MISHAPS" in os.environ else -1
        if fate == 0:
            raise ZeroDivisionError("at once")
        yield book
        if fate == 1:
            raise ZeroDivisionError("half-way")
        yield Stock(f"{book.upc}-stock", book.available, book.price)


class ShelfNeverSpider(ShelfSpider):
    name = "shelf_never"
    revisit: ClassVar[Revisit] = "never"


class ShelfAlwaysSpider(ShelfSpider):
    name = "shelf_always"
    revisit: ClassVar[Revisit] = "always"


class ShelfSometimesSpider(ShelfSpider):
    name = "shelf_sometimes"
    # What an author may write by mistake.
    revisit = "sometimes"  # type: ignore[assignment]
