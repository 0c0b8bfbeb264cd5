"""Pages without a network: as many items as a test asks for, at the pace it asks for."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

from scrapy import Request, Spider
from scrapy.http import Response

# More digits than PostgreSQL's numeric has room for: a row it refuses, whoever sends it.
POISON = Decimal("9" * 140_000)


@dataclass
class Thing:
    number: int
    value: str | Decimal
    text: str


def value_of(number: int, edition: int = 1) -> str:
    """Return what the thing of this number says: also known to PostgreSQL, as md5()."""
    return hashlib.md5(f"{edition}:{number}".encode(), usedforsecurity=False).hexdigest()


def text_of(number: int, text_bytes: int) -> str:
    """Return the ballast of the thing of this number."""
    return random.Random(number).randbytes(text_bytes // 2).hex()


def is_poison(number: int, poison_every: int) -> bool:
    """Return True if PostgreSQL will refuse the thing of this number; ``poison_every`` 0: never."""
    return bool(poison_every) and number % poison_every == poison_every // 2


class StreamSpider(Spider):
    """``pages`` of ``items``, one page every ``pause`` seconds."""

    name = "stream"
    key = "number"

    def __init__(self, **given: str) -> None:
        super().__init__()
        self.first_page = int(given.get("first_page", 0))
        self.pages = int(given.get("pages", 10))
        self.items = int(given.get("items", 20))
        self.text_bytes = int(given.get("text_bytes", 100))
        self.edition = int(given.get("edition", 1))
        self.poison_every = int(given.get("poison_every", 0))
        self.pause = float(given.get("pause", 0))
        self.fails_at = int(given.get("fails_at", -1))
        self.blocks_at = int(given.get("blocks_at", -1))
        self.slow_url = given.get("slow_url")

    async def start(self) -> AsyncIterator[Request]:
        if self.slow_url:
            yield Request(self.slow_url, self.parse_slow)
        for page in range(self.first_page, self.first_page + self.pages):
            yield Request(f"data:,{page}", self.parse)
            if self.pause:
                await asyncio.sleep(self.pause)

    async def parse(self, response: Response) -> AsyncIterator[Thing]:
        page = int(response.body)
        for number in range(page * self.items, (page + 1) * self.items):
            if number == self.fails_at:
                raise ZeroDivisionError("half-way")
            if number == self.blocks_at:
                self.logger.info("This callback never ends")
                time.sleep(300)  # noqa: ASYNC251 -- a callback that never ends
            value = POISON if is_poison(number, self.poison_every) else value_of(number, self.edition)
            yield Thing(number, value, text_of(number, self.text_bytes))

    def parse_slow(self, response: Response) -> None:
        raise AssertionError("this page never ends")
