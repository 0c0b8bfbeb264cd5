"""The fields of an item, whatever kind of item it is."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from itemadapter import ItemAdapter

Reader = Callable[[Any], Mapping[str, Any]]


def fields_of(item: Any) -> Mapping[str, Any] | None:
    """Given anything, return its fields by name if it is an item, else None.

    What ``ItemAdapter`` finds, in the same order. It asks each item anew what it is, which costs more
    than encoding it; here that is asked once for each class.
    """
    reader = _reader_for(item.__class__)
    return None if reader is None else reader(item)


@lru_cache(maxsize=256)
def _reader_for(kind: type) -> Reader | None:
    if not ItemAdapter.is_item_class(kind):
        return None
    if issubclass(kind, dict):
        return _itself
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    return _adapted


def _itself(item: dict[str, Any]) -> Mapping[str, Any]:
    return item


def _adapted(item: Any) -> Mapping[str, Any]:
    return dict(ItemAdapter(item))


def _dataclass_reader(kind: type) -> Reader:
    names = [field.name for field in fields(kind)]

    def read(item: Any) -> Mapping[str, Any]:
        try:
            return {name: getattr(item, name) for name in names}
        except AttributeError:
            # A field may have no value yet; the others are the item's.
            return _adapted(item)

    return read
