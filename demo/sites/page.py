"""What a local site is: pages by path, each a pure function of the seed and the revision."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from demo.sites.revision import Revision

FIRST_PUBLISHED = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer before compression and validators. ``modified`` is in UTC."""

    body: bytes
    content_type: str
    modified: datetime = FIRST_PUBLISHED


class LocalSite(Protocol):
    """One copied site. ``base_path`` is what follows the host in its base URL, e.g. ``3/``."""

    name: str
    base_path: str

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path that starts with a slash, return its page, or None if there is none."""
        ...


def published_at(revision_number: int) -> datetime:
    """Given the number of a revision, return when it was published, in UTC: one a day."""
    return FIRST_PUBLISHED + timedelta(days=revision_number - 1)


def text_page(text: str, content_type: str, revision_number: int = 1) -> Page:
    """Given the text of a page and the revision it last changed in, return the page."""
    return Page(text.encode(), content_type, published_at(revision_number))
