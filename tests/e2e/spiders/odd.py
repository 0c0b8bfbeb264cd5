"""What spiders yield by mistake, each between two good neighbours."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, TypedDict
from uuid import UUID

import scrapy
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.selector import Selector


class Colour(Enum):
    RED = "red"


class Listed(scrapy.Item):
    id = scrapy.Field()
    value = scrapy.Field()


@dataclasses.dataclass
class Plain:
    id: str
    value: Any


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def kept() -> dict[str, Any]:
    """Values with a form in a row, by the name of their case."""
    return {
        "text": "naïve 🦀 \u2028 \\u0000 \\",
        "numbers": [0, -1, 1.5, True, None],
        "tuple": (1, (2,)),
        "datetime": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=9))),
        "naive datetime": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 -- what a careless spider yields
        "date": date(2026, 1, 2),
        "time": time(3, 4, 5),
        "decimal": Decimal("12345678901234567890.12345678901234567890"),
        "decimal exponent": Decimal("1E+3"),
        "decimal nan": Decimal("NaN"),
        "huge integer": 10**400,
        "below 64 bits": -(2**70),
        "uuid": UUID(int=1),
        "enum": Colour.RED,
        "bytes": b"\x00\xff",
        "set": {3, 1, 2},
        "nan": float("nan"),
        "infinity": [float("inf"), -float("inf")],
        "nul": "a\x00b",
        "surrogate": "a\ud800b",
        "nul in a name": {"a\x00": 1},
        "names": {1: "a", None: "b", (2, 3): "c"},
        "item in item": Plain("x", [Plain("y", Decimal(1))]),
        "tabs and lines": "a\tb\nc\rd\\N",
        "long text": "x" * 1_500_000,
    }


def refused() -> dict[str, Any]:
    """Items without a form in a row, by the name of their case."""
    return {
        "no item": 42,
        "text as item": "an item",
        "no key": {"value": 1},
        "key of none": {"id": None, "value": 1},
        "empty key": {"id": "", "value": 1},
        "key of list": {"id": ["a"], "value": 1},
        "key with nul": {"id": "a\x00", "value": 1},
        "key with surrogate": {"id": "a\ud800", "value": 1},
        "too large": {"id": "too large", "value": "x" * 5_000_000},
        "selector": {"id": "selector", "value": Selector(text="<p>x</p>")},
        "deep": {"id": "deep", "value": nested(10_000)},
        "beyond digits": {"id": "beyond digits", "value": 10**5000},
        "itself": itself(),
        "function": {"id": "function", "value": len},
    }


def itself() -> dict[str, Any]:
    item: dict[str, Any] = {"id": "itself"}
    item["value"] = item
    return item


class OddSpider(Spider):
    """One page with every case, and a good item before and after each."""

    name = "odd"
    key: ClassVar[str | tuple[str, ...]] = "id"

    async def start(self) -> AsyncIterator[Request]:
        yield Request("data:,odd", self.parse)

    def parse(self, response: Response) -> Iterator[Any]:
        yield None
        for name, value in kept().items():
            yield {"id": f"before {name}"}
            yield {"id": name, "value": value}
        for name, item in refused().items():
            yield {"id": f"before {name}"}
            yield item
        yield {"id": "last"}
        yield Plain("a dataclass", 1)
        yield Listed(id="a scrapy item", value=1)


class Loose(TypedDict):
    name: str


@dataclasses.dataclass
class Typed:
    id: str
    price: Decimal
    amount: int
    seen: datetime
    note: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    loose: Loose | None = None


@dataclasses.dataclass
class NeverYielded:
    id: str
    loose: Loose


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def invalid() -> dict[str, dict[str, Any]]:
    """What breaks the types of ``Typed``, by the name of its case."""
    return {
        "price of text": {"price": "1.50"},
        "price of float": {"price": 1.5},
        "no price": {"price": None},
        "amount of bool": {"amount": True},
        "date for a time": {"seen": date(2026, 1, 2)},
        "number among tags": {"tags": ["a", 5]},
        "two at once": {"amount": "5", "note": 7},
    }


class TypedSpider(Spider):
    """Two pages of items that are declared: on the second each case of ``invalid`` between good ones."""

    name = "typed"
    key: ClassVar[str | tuple[str, ...]] = "id"

    async def start(self) -> AsyncIterator[Request]:
        for page in ("good", "odd"):
            yield Request(f"data:,{page}", self.parse)

    def parse(self, response: Response) -> Iterator[Any]:
        good: dict[str, Any] = {"price": Decimal("1.50"), "amount": 5, "seen": NOON}
        if response.text == "good":
            yield Typed("good", **good)
            yield {"id": "a dict", "price": "anything"}
            return
        for name, fields in invalid().items():
            yield Typed(f"before {name}", **good)
            yield Typed(name, **good | fields)


class CompositeSpider(Spider):
    """Keys of several fields."""

    name = "composite"
    key = ("shop", "number")

    async def start(self) -> AsyncIterator[Request]:
        yield Request("data:,composite", self.parse)

    def parse(self, response: Response) -> Iterator[Any]:
        for shop, number in (("a", 1), ("a", 2), ("b", 1), ("a", "1"), ('","', 1), (date(2026, 1, 2), 1)):
            yield {"shop": shop, "number": number}
        yield {"shop": "a"}


class SeriesSpider(Spider):
    """Every observation is kept, equal or not."""

    name = "series"
    key = "sensor"
    keep = "every"

    async def start(self) -> AsyncIterator[Request]:
        yield Request("data:,series", self.parse)

    def parse(self, response: Response) -> Iterator[Any]:
        for _ in range(5):
            yield {"sensor": "a", "value": 20, "at": datetime(2026, 1, 1, tzinfo=UTC)}
