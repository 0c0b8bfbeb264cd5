"""What every per-site spider shares: where the site is, and what names a thing on it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NoReturn, get_args
from urllib.parse import urljoin, urlsplit

import scrapy

Revisit = Literal["never", "if-changed", "always"]


class SourceSpider(scrapy.Spider):
    """One site, crawled by one class in one file of the same name.

    A spider sets ``name``, ``base_url``, its politeness in ``custom_settings`` and, where the
    defaults do not fit, the attributes below. It yields ordinary Scrapy items from its
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

    drift: ClassVar[Mapping[str, Any]] = {}
    """From where on a run is unlike those before it, where the defaults do not fit: docs/drift.md."""

    schedule: ClassVar[str] = ""
    """When to crawl: five cron fields in the host's time zone, e.g. ``17 4 * * *``. Empty: by hand."""

    revisit: ClassVar[Revisit] = "if-changed"
    """What a later run does about a page whose items are safe.

    ``if-changed`` asks the site whether it has changed, and reads it again only then; ``never`` does not
    ask for it again; ``always`` reads every page in every run. Pages with links are always read.
    """

    def __init__(
        self,
        *args: Any,
        base_url: str | None = None,
        deltafetch_reset: str | bool = False,
        **kwargs: Any,
    ) -> None:
        """Given spider arguments (``-a NAME=VALUE``), return a spider of the site at ``base_url``.

        ``deltafetch_reset`` makes it forget first which pages it knows.
        Raise ValueError if the address is not an absolute http or https URL, or for an unknown argument.
        """
        # scrapyd gives every spider its own names, which start with an underscore.
        unknown = {name: value for name, value in kwargs.items() if not name.startswith("_")}
        if unknown:
            refuse_arguments(type(self).__name__, unknown)
        super().__init__(*args, **kwargs)
        self.base_url = base_url or self.base_url
        self.deltafetch_reset = deltafetch_reset
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
        f"unknown argument of {spider}: {names}; allowed: base_url, deltafetch_reset. "
        "A spider that takes more names them in its own __init__"
    )


def revisit_of(spidercls: type[scrapy.Spider]) -> Revisit:
    """Given a spider's class, return what its later runs do about pages whose items are safe.

    A time series is always read: an unchanged page is an observation too. So is a spider that says nothing.
    Raise ValueError for what is none of the three.
    """
    revisit: Revisit = getattr(spidercls, "revisit", "always")
    if revisit not in get_args(Revisit):
        raise ValueError(
            f"revisit={revisit!r} of the spider {spidercls.name!r}; allowed: {', '.join(get_args(Revisit))}"
        )
    if revisit == "if-changed" and getattr(spidercls, "keep", "changes") == "every":
        return "always"
    return revisit


def is_reset(spider: scrapy.Spider) -> bool:
    """Given a spider, return whether ``-a deltafetch_reset=`` tells it to forget which pages it knows."""
    text = str(getattr(spider, "deltafetch_reset", False))
    return text.lower() not in ("", "0", "false", "no", "off")
