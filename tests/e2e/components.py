"""Pipelines and extensions that crawls of the tests are run with: a witness, and some that fail."""

import asyncio
import os
from typing import Any, Self

from itemadapter import ItemAdapter
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem


class Witness:
    """Behind delivery: notes each item that delivery has taken charge of, in a file of its own."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler.settings["WITNESS"])

    def process_item(self, item: Any) -> Any:
        os.write(self._file, f"{ItemAdapter(item)['number']}\n".encode())
        return item


class Dropping:
    """In front of delivery: drops every tenth item."""

    def process_item(self, item: Any) -> Any:
        if ItemAdapter(item)["number"] % 10 == 0:
            raise DropItem("every tenth one")
        return item


class Failing:
    """In front of delivery: raises for every seventh item."""

    def process_item(self, item: Any) -> Any:
        if ItemAdapter(item)["number"] % 7 == 0:
            raise ZeroDivisionError("every seventh one")
        return item


class FailingAtClose:
    """Raises at once when the spider closes, which makes Scrapy abandon the others."""

    def process_item(self, item: Any) -> Any:
        return item

    async def close_spider(self) -> None:
        raise ZeroDivisionError("at close")


class SlowAtClose:
    """Takes a minute to close."""

    def process_item(self, item: Any) -> Any:
        return item

    async def close_spider(self) -> None:
        await asyncio.sleep(60.0)
