"""Crawls of the local bookshop by tests.e2e.spiders.shelf, and what the shop saw of them."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from crawler import settings
from demo.sites.process import requests_served
from tests.support.crawls import TEST_SPIDERS, Done, Host, addresses

BOOK_PATH = re.compile(r"^/catalogue/[^/]+/index\.html$")
MISHAPS = {"MISHAPS": "1"}
"""The settings of a host where callbacks fail."""


@dataclass(frozen=True, slots=True)
class Visits:
    """What a site was asked for: how many pages of books, how many answers of a status, body bytes."""

    books: int
    by_status: dict[str, int]
    bytes_sent: int
    requests: int

    @property
    def not_modified(self) -> int:
        return self.by_status.get("304", 0)


@dataclass(slots=True)
class Shelf:
    """A source on a host, and the site it crawls."""

    host: Host
    base_url: str
    source: str = "shelf"

    def crawl(self, *options: str) -> tuple[Done, Visits]:
        """Crawl to the end."""
        with self.counting() as visits:
            done = self.host.crawl(*self.command(*options))
        return done, visits[0]

    def command(self, *options: str) -> tuple[str, ...]:
        """Return what ``Host.crawling`` needs."""
        return (self.source, *TEST_SPIDERS, *addresses(self.base_url, *options))

    @contextmanager
    def counting(self) -> Iterator[list[Visits]]:
        """Yield a list that has, after the block, what the site was asked for in it."""
        requests_served(self.base_url, reset=True)
        visits: list[Visits] = []
        yield visits
        visits.append(seen_by(self.base_url))

    def rows(self) -> list[tuple[str, str]]:
        """Return every version of every item, in order of time: its key and the hash of its content."""
        return self.host.versions(self.source)


def seen_by(base_url: str) -> Visits:
    """Return what a site was asked for since it last began to count."""
    served: dict[str, Any] = requests_served(base_url)
    books = sum(number for path, number in served["by_path"].items() if BOOK_PATH.match(path))
    return Visits(books, served["by_status"], served["bytes_sent"], served["requests"])


def with_pipeline(path: str) -> tuple[str, str]:
    """Return the option that puts a pipeline in front of delivery."""
    return ("-s", f"ITEM_PIPELINES={json.dumps({**settings.ITEM_PIPELINES, path: 100})}")


def instead_of(setting: str, component: str, other: str) -> tuple[str, str]:
    """Return the option that puts another component in the place of one of the project's."""
    components: dict[str, int] = getattr(settings, setting)
    return ("-s", f"{setting}={json.dumps({**components, component: None, other: components[component]})}")
