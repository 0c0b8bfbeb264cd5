"""Every kind of item has its fields read as ItemAdapter reads them."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any

import attrs
import pytest
import scrapy
from itemadapter import ItemAdapter

from crawler.fields import fields_of


@dataclass
class Plain:
    b: int
    a: str = "x"


@dataclass(slots=True)
class Slotted:
    b: int
    later: str = field(init=False)
    a: str = "x"


@dataclass
class Empty:
    pass


class Inheriting(Plain):
    c = 1


@attrs.define
class Attribute:
    b: int
    a: str


class Shelf(scrapy.Item):
    b = scrapy.Field()
    a = scrapy.Field()


ITEMS: list[Any] = [
    {"b": 1, "a": "x"},
    OrderedDict(b=1, a="x"),
    defaultdict(list, b=1),
    Plain(1),
    Slotted(1),
    Empty(),
    Inheriting(1),
    Attribute(1, "x"),
    Shelf(b=1),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_the_fields_are_those_that_itemadapter_finds_in_its_order(item: Any) -> None:
    fields = fields_of(item)
    assert fields is not None
    assert list(fields.items()) == list(ItemAdapter(item).items())


def test_a_field_that_gets_its_value_later_is_there_then() -> None:
    item = Slotted(1)
    before = fields_of(item)
    item.later = "now"
    assert (before, fields_of(item)) == ({"b": 1, "a": "x"}, {"b": 1, "later": "now", "a": "x"})


@pytest.mark.parametrize("other", ["text", 1, None, [1], Plain, object()], ids=repr)
def test_what_is_not_an_item_has_no_fields(other: Any) -> None:
    assert not ItemAdapter.is_item(other)
    assert fields_of(other) is None
