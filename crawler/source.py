"""What every per-site spider shares: where the site is, and what names a thing on it."""

from typing import Any, ClassVar, Literal, NoReturn
from urllib.parse import urljoin, urlsplit

import scrapy


class SourceSpider(scrapy.Spider):
    """One site, crawled by one class in one file of the same name.

    A spider sets ``name``, ``base_url``, its politeness in ``custom_settings`` and, where the
    defaults do not fit, the three attributes below. It yields ordinary Scrapy items from its
    callbacks; the platform adds source, key, url, scraped_at, run id and host.

    ``-a base_url=http://127.0.0.1:8001/`` points the same code at another copy of the site.
    """

    base_url: str = ""
    """The address every path of the site is relative to. Ends with a slash."""

    key: ClassVar[str | tuple[str, ...]] = "url"
    """The item field, or fields, that name the thing within the source."""

    keep: ClassVar[Literal["changes", "every"]] = "changes"
    """``changes`` stores one row per version; ``every`` stores each observation (a time series)."""

    spool_first: ClassVar[bool] = False
    """True for a feed that never serves an item twice: each batch reaches the card before the NAS."""

    def __init__(self, *args: Any, base_url: str | None = None, **kwargs: Any) -> None:
        """Given spider arguments (``-a NAME=VALUE``), return a spider of the site at ``base_url``.

        Raise ValueError if the address is not an absolute http or https URL, or for an unknown argument.
        """
        # scrapyd gives every spider its own names, which start with an underscore.
        unknown = {name: value for name, value in kwargs.items() if not name.startswith("_")}
        if unknown:
            refuse_arguments(type(self).__name__, unknown)
        super().__init__(*args, **kwargs)
        self.base_url = base_url or self.base_url
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url={self.base_url!r} of spider {self.name!r} is not an address; "
                "allowed: an absolute http:// or https:// URL, e.g. -a base_url=http://127.0.0.1:8001/"
            )
        if not self.base_url.endswith("/"):
            self.base_url += "/"
        self.allowed_domains = [parts.hostname]

    def site_url(self, path: str) -> str:
        """Given a path relative to the site, return its absolute URL."""
        return urljoin(self.base_url, path)


def refuse_arguments(spider: str, arguments: dict[str, Any]) -> NoReturn:
    names = ", ".join(sorted(arguments))
    raise ValueError(
        f"unknown argument of {spider}: {names}; allowed: base_url. "
        "A spider that takes more names them in its own __init__"
    )
