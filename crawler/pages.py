"""Which page an item came from, between the callback that yields it and the pipeline that takes it."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType

from scrapy.http import Response

from crawler.tickets import Ticket

REFUSED = "refused"
"""The flag of a response that never came to its callback: what there is of it, an errback has made."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where an item was found, and the receipt it counts on."""

    url: str
    ticket: Ticket
    reference: "ReferenceType[Response] | None" = None

    @property
    def response(self) -> Response | None:
        """The page itself, for as long as its callback or Scrapy holds it: until its items are delivered."""
        return None if self.reference is None else self.reference()


@dataclass(slots=True)
class SettledPage:
    """What a page's callback yielded, and whether the page counts as seen.

    ``is_seen`` only if the callback ended well and every one of its ``items`` is in PostgreSQL, the
    spool or the dead letters. ``links`` are the requests it yielded.
    """

    items: int = 0
    links: int = 0
    is_seen: bool = False


class PageBook:
    """Items on their way through the pipelines. Reactor thread only.

    Scrapy's pipelines see items without their response. Items are told apart by identity, so a pipeline
    in front of delivery must hand on the object it was given; one that replaces it costs its page
    the mark "seen", never data.
    """

    def __init__(self, max_items: int) -> None:
        """Given how many items can be on their way at once, return an empty book."""
        self._max_items = max_items
        self._pages: OrderedDict[int, tuple[Any, Page]] = OrderedDict()

    def enter(self, item: Any, page: Page) -> None:
        """Remember, and thereby keep alive, an item just yielded."""
        page.ticket.issue()
        self._pages[id(item)] = (item, page)
        if len(self._pages) > self._max_items:
            _key, (_item, forgotten) = self._pages.popitem(last=False)
            forgotten.ticket.void()

    def take(self, item: Any) -> Page | None:
        """Return the page of an item and forget it; None if it was never entered, or replaced."""
        entry = self._pages.pop(id(item), None)
        return None if entry is None else entry[1]
