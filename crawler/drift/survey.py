"""What one run sees of its site, counted while it crawls: pages by what they gave, fields by item."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Protocol

from itemadapter import ItemAdapter
from scrapy.http import Response

from crawler.drift.comparison import Profile
from crawler.drift.samples import SampleBook, Why
from crawler.exceptions import ItemInvalid
from crawler.items import mended_text
from crawler.pages import REFUSED, Page, SettledPage
from crawler.validation import checker_of, is_without_value, unread_annotations

logger = logging.getLogger(__name__)

# Of items that are dicts the keys may be anything: what is kept of a run stays small.
_TYPES_COUNTED = 20
_FIELDS_COUNTED = 100
_NAME_CHARACTERS = 100


class Survey:
    """Reactor thread only, but for ``expect``, before the first page, and ``profile``, after the last."""

    def __init__(self) -> None:
        self.samples = SampleBook()
        self.invalid = 0
        self._link_pages = self._item_pages = self._empty_pages = self._raised_pages = 0
        self._items = 0
        self._page_bytes = 0
        self._types: dict[type, _FieldCount] = {}
        self._announced: set[type] = set()
        self._usual: Mapping[str, float] = {}
        self._most_missed = 0.0
        self._most_missed_field = ""

    def expect(self, coverage: Mapping[str, float]) -> None:
        """Given the usual coverage of each ``Type.field``, keep a page whose items lack what is usual."""
        self._usual = coverage

    def announce(self, kinds: Iterable[type]) -> None:
        """Given dataclasses that items may be of, compile their checks and say what cannot be checked."""
        for kind in kinds:
            if kind not in self._announced:
                self._announced.add(kind)
                for field in unread_annotations(kind):
                    logger.warning("Items are not held to a type that cannot be read: %s", field)

    # -- items ---------------------------------------------------------------------------------

    def item(self, item: Any, page: Page | None) -> None:
        """Count which fields of an item have a value. Raise ItemInvalid if it breaks its own types."""
        kind = type(item)
        count = self._types.get(kind) or self._met(kind)
        count.items += 1
        try:
            empty = count.examine(item)
        except ItemInvalid as invalid:
            self.invalid += 1
            self._lacks(count, invalid.empty, page)
            self.samples.offer(Why.INVALID, page.response if page else None)
            raise
        if empty:
            self._lacks(count, empty, page)

    def _met(self, kind: type) -> "_FieldCount":
        count: _FieldCount
        if is_dataclass(kind):
            self.announce([kind])
            count = _DataclassFields(kind)
        elif ItemAdapter.is_item_class(kind):
            prefix = f"{kind.__name__}."
            usual = [name.removeprefix(prefix) for name in self._usual if name.startswith(prefix)]
            count = _LooseFields(kind, usual)
        else:
            count = _NoFields(kind)
        if len(self._types) < _TYPES_COUNTED:
            self._types[kind] = count
        return count

    def _lacks(self, count: "_FieldCount", empty: Sequence[str], page: Page | None) -> None:
        """Count the empty fields; keep the page if it lacks the field that is missing the most so far."""
        for name in empty:
            count.empty[name] = count.empty.get(name, 0) + 1
            field = f"{count.name}.{name}"
            missed = count.empty[name] - (1 - self._usual.get(field, 0.0)) * count.items
            if missed > self._most_missed:
                self._most_missed = missed
                if field != self._most_missed_field:
                    self._most_missed_field = field
                    self.samples.put(Why.LACKING, page.response if page else None)

    # -- pages ---------------------------------------------------------------------------------

    def page_ended(self, response: Response, outcome: SettledPage, *, is_whole: bool) -> None:
        """A page has yielded all it will. ``is_whole`` is False if its callback was cut short."""
        self._items += outcome.items
        if not is_whole:
            return
        if REFUSED in response.flags:
            self.page_failed(response)
            return
        if outcome.links and not outcome.items:
            self._link_pages += 1
            self.samples.offer(Why.ONLY_LINKS, response)
            return
        if outcome.items:
            self._item_pages += 1
        else:
            self._empty_pages += 1
            self.samples.offer(Why.EMPTY, response)
        self._page_bytes += len(response.body)

    def page_raised(self, response: Response) -> None:
        """A page's callback raised, maybe after it yielded something."""
        if REFUSED in response.flags:
            self.page_failed(response)
            return
        self._raised_pages += 1
        self._page_bytes += len(response.body)
        self.samples.offer(Why.RAISED, response)

    def page_failed(self, response: Response) -> None:
        """A page came that is none, an error or a challenge: it is among the failed requests."""
        self.samples.offer(Why.FAILED, response)

    # -- the result ----------------------------------------------------------------------------

    def profile(
        self, site: str, *, failed: Mapping[str, int], spared_pages: int, dead: int, received_bytes: int
    ) -> Profile:
        """Given what others count, return what the run saw."""
        return Profile(
            site=site,
            link_pages=self._link_pages,
            item_pages=self._item_pages,
            empty_pages=self._empty_pages,
            raised_pages=self._raised_pages,
            spared_pages=spared_pages,
            failed=dict(failed),
            items=self._items,
            dead=dead,
            page_bytes=self._page_bytes,
            received_bytes=received_bytes,
            filled={count.name: (count.items, count.filled()) for count in self._types.values()},
        )


class _FieldCount(Protocol):
    """The items of one type, and how many of them had no value in which field."""

    name: str
    items: int
    empty: dict[str, int]

    def examine(self, item: Any) -> Sequence[str]:
        """Return the fields without a value. Raise ItemInvalid."""
        ...

    def filled(self) -> dict[str, int]:
        """Return how many items had a value, by field."""
        ...


class _DataclassFields:
    def __init__(self, kind: type) -> None:
        checker = checker_of(kind)
        self.name = kind.__name__
        self.items = 0
        self.empty = dict.fromkeys(checker.names[:_FIELDS_COUNTED], 0)
        self.examine = checker.examine

    def filled(self) -> dict[str, int]:
        return {name: self.items - empty for name, empty in self.empty.items()}


class _LooseFields:
    """Items whose fields are not declared for all: dicts, mostly."""

    def __init__(self, kind: type, usual: Iterable[str]) -> None:
        self.name = kind.__name__
        self.items = 0
        self.empty = dict.fromkeys(usual, 0)

    def examine(self, item: Any) -> Sequence[str]:
        fields = ItemAdapter(item)
        for name in fields:
            if name not in self.empty and len(self.empty) < _FIELDS_COUNTED and _is_countable(name):
                # No item before had it.
                self.empty[name] = self.items - 1
        return [name for name in self.empty if is_without_value(fields.get(name))]

    def filled(self) -> dict[str, int]:
        return {name: self.items - empty for name, empty in self.empty.items()}


def _is_countable(name: Any) -> bool:
    """The name of a field may be what a page said: the count of it goes to the ledger and the database."""
    return isinstance(name, str) and len(name) <= _NAME_CHARACTERS and mended_text(name) == name


class _NoFields:
    """What is no item, and will be refused as such."""

    def __init__(self, kind: type) -> None:
        self.name = kind.__name__
        self.items = 0
        self.empty: dict[str, int] = {}

    def examine(self, item: Any) -> Sequence[str]:
        return ()

    def filled(self) -> dict[str, int]:
        return {}
