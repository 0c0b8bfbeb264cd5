"""What tells that a page is still the one whose items are safe: pure functions, after RFC 9110.

A page is remembered by its entity tag, its date, and hashes; never by its body.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any, Literal

import orjson

Header = Callable[[str], str | None]
"""Given a header's name, return its value in one text, or None if there is none."""

Change = Literal["none", "content", "content under the old tag"]

# What is longer is no tag but a mistake, and would cost the card.
_LONGEST_VALUE = 250
# RFC 9110, 8.8.2.2: a page may change twice in the second its date names.
_DATE_IS_SURE_AFTER = timedelta(seconds=1)
# The codings of a transfer: their variants are one page once they are decoded.
_NOT_A_VARIANT = "accept-encoding"

# Request.meta of Scrapy's and the platform's own, by which a page is fetched, not what it says. Any other
# name is the spider's, and what it yields may depend on it.
PLATFORM_META = frozenset(
    """
    allow_offsite autothrottle_dont_adjust_delay bindaddress cache_timestamp conditional_get
    deltafetch_enabled deltafetch_key depth dont_cache dont_merge_cookies dont_obey_robotstxt
    dont_redirect dont_retry download_fail_on_dataloss download_latency download_maxsize
    download_slot download_timeout download_warnsize failed_request give_up_log_level
    handle_httpstatus_all handle_httpstatus_list is_start_request max_retry_times priority_adjust
    proxy redirect_reasons redirect_times redirect_ttl redirect_urls referrer_policy retry_times
    verbatim_url _auth_proxy _dont_cache _scheme_proxy
    """.split()
)


@dataclass(frozen=True, slots=True)
class Version:
    """A page as it was when its items were stored.

    ``content`` is the hash of its decoded body. ``context`` is the hash of what else its items may depend
    on. ``vary`` names the request headers that chose this variant, ``variant`` hashes their values.
    A server that was caught with one tag on two contents is not trusted: its page has no validators.
    """

    content: str
    context: str
    etag: str | None = None
    last_modified: str | None = None
    vary: str = ""
    variant: str = ""
    is_trusted: bool = True

    def as_facts(self) -> list[Any]:
        """Return the version in a form that has one in JSON."""
        return list(astuple(self))

    @classmethod
    def from_facts(cls, facts: list[Any]) -> "Version | None":
        """Given what ``as_facts`` returned, return the version; None for facts of another kind."""
        return cls(*facts) if len(facts) == len(cls.__slots__) else None


def version_of(body: bytes, context: str, *, answered: Header, asked: Header, sent: Header) -> Version | None:
    """Given a page as it was answered, return what to remember of it, or None if nothing may be.

    ``asked`` are the request's headers as they are when the next run decides what to ask; ``sent`` are
    those that were sent in the end. A page that depends on one that is only added later is not remembered.
    """
    vary = _names(answered("vary"))
    if "*" in vary or "no-store" in _names(answered("cache-control")):
        return None
    names = [name for name in vary if name != _NOT_A_VARIANT]
    if any(asked(name) != sent(name) for name in names):
        return None
    etag = answered("etag")
    return Version(
        content=digest(body),
        context=context,
        etag=etag if _is_usable(etag) else None,
        last_modified=_sure_date(answered("last-modified"), answered("date")),
        vary=",".join(names),
        variant=_variant(names, asked) if names else "",
    )


def conditions(known: Version, asked: Header) -> dict[str, str]:
    """Given a remembered page and the headers to ask for it with, return those that make it conditional."""
    names = known.vary.split(",") if known.vary else []
    if not known.is_trusted or (names and _variant(names, asked) != known.variant):
        return {}
    fields = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in fields.items() if value}


def change_between(known: Version, fresh: Version) -> Change:
    """Given a remembered page and the same as it was just answered, return what has changed."""
    if known.content == fresh.content:
        return "none"
    if known.etag or fresh.etag:
        is_same_tag = known.etag == fresh.etag
    else:
        is_same_tag = known.last_modified is not None and known.last_modified == fresh.last_modified
    return "content under the old tag" if is_same_tag else "content"


def context_of(
    callback: str,
    arguments: Mapping[str, Any],
    meta: Mapping[str, Any],
    program: str,
    represented: Callable[[Any], Any] | None = None,
) -> str | None:
    """Return the hash of what a page's items may depend on besides the page; None if it has none.

    Given the name of its callback, the callback's arguments, the request's meta, and the hash of the
    spider's source. ``represented`` is orjson's ``default``: it turns a value into one that JSON has.
    """
    own_meta = {name: value for name, value in meta.items() if name not in PLATFORM_META}
    try:
        known = orjson.dumps(
            [program, callback, arguments, own_meta],
            represented,
            orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS,
        )
    except orjson.JSONEncodeError:
        return None
    return digest(known)


def digest(content: bytes) -> str:
    """Return 96 bits that stand for a content, as hexadecimal text."""
    return blake2b(content, digest_size=12).hexdigest()


def _names(value: str | None) -> list[str]:
    """Given a header that lists names, return them in one spelling and order."""
    return sorted({name for part in (value or "").lower().split(",") if (name := part.strip())})


def _variant(names: list[str], header: Header) -> str:
    return digest(orjson.dumps([header(name) for name in names]))


def _is_usable(value: str | None) -> bool:
    return value is not None and 0 < len(value) <= _LONGEST_VALUE


def _sure_date(last_modified: str | None, date: str | None) -> str | None:
    """Return the page's date if no later change can have the same: it was over when the page was sent."""
    if last_modified is None or date is None or not _is_usable(last_modified):
        return None
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(last_modified)
    except (ValueError, TypeError):
        return None
    return last_modified if age >= _DATE_IS_SURE_AFTER else None
