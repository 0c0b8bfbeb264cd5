"""A run of a source against its last runs: what is suddenly less, or suddenly wrong, and likely why.

Two guards stand between a figure and an alarm. A figure without a sample size (items, bytes) must be as
low as in at most a quarter of the runs compared with, so that a source's quiet weekends are known after
a few of them. A share of something (pages, items) must be too high for chance, so that one odd page of
three is none. Everything here is a pure function of what it is given.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from math import exp, log
from statistics import median
from typing import Any, NamedTuple

RUNS_NEEDED = 3
"""First runs never alarm: with fewer earlier runs than this nothing is judged."""

# Instead of so many runs, a share of so many things is known as well: one run may be all there is of a
# site that never changes.
_THINGS_NEEDED = 20
_PAGES_FOR_A_MEAN_SIZE = 10
_CHANCE = 0.001
# No share is believed to be nothing, or everything, for ever.
_RAREST = 0.01
_FIELDS_NAMED = 10


class Kind(StrEnum):
    """What is odd about a run: a closed set, of which stats are made."""

    ZERO_ITEMS = "zero_items"
    FEWER_ITEMS = "fewer_items"
    ERRORS = "errors"
    EMPTY_PAGES = "empty_pages"
    DEAD_LETTERS = "dead_letters"
    FIELD_MISSING = "field_missing"
    SMALLER_PAGES = "smaller_pages"


class Cause(StrEnum):
    """What is likely behind it: a closed set."""

    DNS = "dns"
    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    BROKEN = "broken"
    GONE = "gone"
    FORBIDDEN = "forbidden"
    UNUSABLE = "unusable"
    SITE_CHANGED = "site_changed"
    FEWER_PAGES = "fewer_pages"
    NO_REQUESTS = "no_requests"


CAUSES_IN_WORDS = {
    Cause.DNS: "the name of the site's host has no address: the domain, or the network's name server",
    Cause.UNREACHABLE: "the site's host does not answer, or the network is down",
    Cause.BLOCKED: "the site keeps this crawler away (403, 429 or a challenge)",
    Cause.BROKEN: "the site does not work (5xx)",
    Cause.GONE: "the pages are not there any more (404, 410)",
    Cause.FORBIDDEN: "robots.txt, or a login, forbids the pages",
    Cause.UNUSABLE: "the site answers what the spider does not handle",
    Cause.SITE_CHANGED: "the site changed its pages, and the spider does not know them any more",
    Cause.FEWER_PAGES: "the site lists less than it did, or its listing changed",
    Cause.NO_REQUESTS: "the spider asked for no page: look at its start()",
}
# Of the failures of a site that does not work, those in which it did not say a word.
_SILENT = frozenset({"timeout", "connection_refused", "connection_lost", "unreachable", "tls"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is odd about a run: the figures, and a sentence with them and the likely cause."""

    kind: Kind
    cause: Cause
    subject: str
    now: float
    usual: float
    text: str

    @property
    def sentence(self) -> str:
        """Return what an operator reads."""
        return f"{self.text}. Likely cause: {CAUSES_IN_WORDS[self.cause]}"

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON has it."""
        return asdict(self) | {"now": round(self.now, 4), "usual": round(self.usual, 4)}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Finding":
        """Given what ``as_json`` returned, return the finding. Raise KeyError, TypeError or ValueError."""
        return cls(**{**value, "kind": Kind(value["kind"]), "cause": Cause(value["cause"])})


@dataclass(frozen=True, slots=True)
class Profile:
    """What one run saw of its site.

    Every page that was parsed is one of four: ``link_pages`` gave links only, ``item_pages`` items,
    ``empty_pages`` nothing, and the callback of ``raised_pages`` raised. ``spared_pages`` are those that
    the page memory knew and that were not parsed. ``failed`` counts requests that came to nothing, by
    ``kind/reason``. ``page_bytes`` are the bodies of parsed pages but link pages; ``received_bytes`` came
    over the network. ``filled`` has, by type of item, how many there were and how many of them had a
    value in each field.
    """

    site: str
    link_pages: int = 0
    item_pages: int = 0
    empty_pages: int = 0
    raised_pages: int = 0
    spared_pages: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    items: int = 0
    dead: int = 0
    page_bytes: int = 0
    received_bytes: int = 0
    filled: Mapping[str, tuple[int, Mapping[str, int]]] = field(default_factory=dict)

    @property
    def content_pages(self) -> int:
        """Parsed pages but those that gave links only.

        A run fetches all of its listings, however little else the page memory lets it fetch: among them
        the pages that show how the site is now would be lost.
        """
        return self.item_pages + self.empty_pages + self.raised_pages

    @property
    def parsed_pages(self) -> int:
        """Pages that a callback was given."""
        return self.link_pages + self.content_pages

    @property
    def failed_requests(self) -> int:
        """Requests that came to nothing."""
        return sum(self.failed.values())

    @property
    def tried_pages(self) -> int:
        """Content pages, and requests that came to nothing."""
        return self.content_pages + self.failed_requests

    def coverage(self) -> "dict[str, Share]":
        """Return how many of the items have a value in each field, as ``Type.field``."""
        return {
            f"{kind}.{name}": Share(filled, items)
            for kind, (items, by_name) in self.filled.items()
            for name, filled in by_name.items()
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Profile":
        """Given JSON, also of another version, return it. Raise KeyError, TypeError or ValueError."""
        known = {each.name for each in fields(cls)}
        profile = {name: given for name, given in value.items() if name in known}
        profile["failed"] = _numbers(value.get("failed", {}))
        profile["filled"] = {
            kind: (int(items), _numbers(by_name))
            for kind, (items, by_name) in value.get("filled", {}).items()
        }
        _numbers({name: given for name, given in profile.items() if name not in ("site", "failed", "filled")})
        return cls(**profile)


def _numbers(value: Mapping[str, Any]) -> dict[str, int]:
    """Return the mapping if it is one to whole numbers. Raise TypeError or ValueError."""
    if not all(type(number) is int and number >= 0 for number in value.values()):
        raise ValueError(value)
    return dict(value)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a run is odd. Shares are from 0 to 1; None switches a comparison off."""

    runs: int = 14
    """How many earlier runs are compared with, at most. Two weeks of a daily source have its weekends."""
    since: date | None = None
    """Runs before this day (UTC) are not compared with: how a lasting change of the site is accepted."""
    items: float | None = 0.5
    """Odd is less than this share of the usual items."""
    page_bytes: float | None = 0.5
    """Odd is less than this share of the usual size of a page."""
    errors: float | None = 0.1
    """Odd is a share of failed pages higher than usual by more than this."""
    empty_pages: float | None = 0.3
    """Odd is a share of pages that gave nothing higher than usual by more than this."""
    dead_letters: float | None = 0.1
    """Odd is a share of dead letters higher than usual by more than this."""
    fields: float | None = 0.3
    """Odd is a share of items with a value in a field lower than usual by more than this."""

    @classmethod
    def of(cls, given: Any) -> "Thresholds":
        """Given a spider's ``drift`` without problems, return the thresholds."""
        return cls(**given)


def problems_of_thresholds(given: Any) -> list[str]:
    """Given a spider's ``drift``, return what is wrong with it: each name, value and what is allowed."""
    if not isinstance(given, Mapping):
        return [f"drift={given!r}; allowed: a dict of thresholds, e.g. {{'items': 0.3}}"]
    names = [each.name for each in fields(Thresholds)]
    problems = [
        f"drift[{name!r}] is unknown; allowed: {', '.join(names)}" for name in given if name not in names
    ]
    for name in names:
        allowed = _allowed(name, given[name]) if name in given else None
        if allowed is not None:
            problems.append(f"drift[{name!r}]={given[name]!r}; allowed: {allowed}")
    return problems


def _allowed(name: str, value: Any) -> str | None:
    """Return what a threshold may be if it is not that."""
    if name == "runs":
        is_right = type(value) is int and RUNS_NEEDED <= value <= 100
        return None if is_right else f"a whole number from {RUNS_NEEDED} to 100"
    if name == "since":
        return None if value is None or type(value) is date else "a date, e.g. date(2026, 5, 1), or None"
    if value is None or (type(value) in (int, float) and 0 <= value <= 1):
        return None
    return "a share from 0 to 1, or None for no comparison"


@dataclass(frozen=True, slots=True)
class Review:
    """What a run saw and what is odd about it. ``compared_with`` is 0 if it was not judged."""

    at: float
    profile: Profile
    compared_with: int = 0
    findings: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the review as JSON has it."""
        return {
            "at": self.at,
            "profile": asdict(self.profile),
            "compared_with": self.compared_with,
            "findings": [finding.as_json() for finding in self.findings],
        }

    @classmethod
    def of_json(cls, value: Any) -> "Review | None":
        """Given what ``as_json`` returned, return the review; None for what another version wrote."""
        try:
            return cls(
                float(value["at"]),
                Profile.of_json(value["profile"]),
                int(value["compared_with"]),
                tuple(map(Finding.of_json, value["findings"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


# -- judging ---------------------------------------------------------------------------------------


def reviewed(profile: Profile, past: Sequence[Review], thresholds: Thresholds, at: float) -> Review:
    """Given what a run saw, its source's last reviews, oldest first, and the time, return its review."""
    history = comparable(past, profile.site, thresholds)
    if len(history) < RUNS_NEEDED:
        return Review(at, profile)
    compared_with = min(len(history), thresholds.runs)
    return Review(at, profile, compared_with, tuple(findings(profile, history, thresholds)))


def comparable(past: Iterable[Review], site: str, thresholds: Thresholds) -> list[Profile]:
    """Given the reviews of a source's runs, oldest first, return the profiles to compare with.

    A run that parsed no page says nothing about the pages. The runs with findings just before this one
    are left out: what is wrong does not become usual by lasting. It does by coming and going.
    """
    since = thresholds.since
    alike = [
        review
        for review in past
        if review.profile.site == site
        and review.profile.parsed_pages
        and (since is None or datetime.fromtimestamp(review.at, UTC).date() >= since)
    ]
    while alike and alike[-1].findings:
        alike.pop()
    return [review.profile for review in alike]


def usual_coverage(history: Sequence[Profile], thresholds: Thresholds) -> dict[str, float]:
    """Given profiles, oldest first, return the median coverage of each ``Type.field`` that is known."""
    shares: dict[str, list[Share]] = {}
    for profile in history:
        for name, share in profile.coverage().items():
            shares.setdefault(name, []).append(share)
    usual = {name: _usual(values, thresholds) for name, values in shares.items()}
    return {name: share for name, share in usual.items() if share is not None}


def findings(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> list[Finding]:
    """Given what a run saw and with what it is compared, oldest first, return what is odd, the worst first.

    Each figure is compared with the last runs that have one: a source that had nothing new for a month is
    compared with what it was before.
    """
    items = list(_items(profile, history, thresholds))
    if any(finding.kind is Kind.ZERO_ITEMS for finding in items):
        # Whatever else is odd is part of it.
        return items
    return [
        *items,
        *_errors(profile, history, thresholds),
        *_empty_pages(profile, history, thresholds),
        *_dead_letters(profile, history, thresholds),
        *_fields(profile, history, thresholds),
        *_page_bytes(profile, history, thresholds),
    ]


def _items(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> Iterator[Finding]:
    if thresholds.items is None:
        return
    # A page that was spared would have given what a page with items usually gives.
    yields = [past.items / past.item_pages for past in history if past.item_pages][-thresholds.runs :]
    per_page = median(yields) if yields else 0.0
    seen = [past.items + per_page * past.spared_pages for past in history][-thresholds.runs :]
    now, usual = profile.items + per_page * profile.spared_pages, median(seen)
    if not _is_rarely_so_low(now, seen):
        return
    if profile.items == 0 and profile.spared_pages == 0:
        cause = cause_of(profile)
        yield Finding(Kind.ZERO_ITEMS, cause, "items", 0.0, usual, f"No items; usually {usual:g}")
    elif now < thresholds.items * usual:
        spared = f" and {profile.spared_pages} pages known from before" if profile.spared_pages else ""
        text = f"{profile.items} items{spared}; usually {usual:g} items are seen"
        yield Finding(Kind.FEWER_ITEMS, cause_of(profile), "items", now, usual, text)


def _errors(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> Iterator[Finding]:
    share = Share(profile.raised_pages + profile.failed_requests, profile.tried_pages)
    past = [Share(each.raised_pages + each.failed_requests, each.tried_pages) for each in history]
    usual = _usual(past, thresholds)
    if usual is not None and is_risen(share, usual, thresholds.errors):
        text = (
            f"{share.number} of {share.total} pages failed, {profile.raised_pages} of them in the spider's "
            f"callback; usually {usual:.0%}"
        )
        yield Finding(Kind.ERRORS, cause_of(profile), "pages", share.value, usual, text)


def _empty_pages(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> Iterator[Finding]:
    share = Share(profile.empty_pages, profile.content_pages)
    usual = _usual([Share(past.empty_pages, past.content_pages) for past in history], thresholds)
    if usual is not None and is_risen(share, usual, thresholds.empty_pages):
        text = f"{share.number} of {share.total} pages gave neither items nor links; usually {usual:.0%}"
        yield Finding(Kind.EMPTY_PAGES, Cause.SITE_CHANGED, "pages", share.value, usual, text)


def _dead_letters(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> Iterator[Finding]:
    share = Share(profile.dead, profile.items)
    usual = _usual([Share(past.dead, past.items) for past in history], thresholds)
    if usual is not None and is_risen(share, usual, thresholds.dead_letters):
        text = f"{share.number} of {share.total} items became dead letters; usually {usual:.0%}"
        yield Finding(Kind.DEAD_LETTERS, Cause.SITE_CHANGED, "items", share.value, usual, text)


def _fields(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> list[Finding]:
    found = []
    usual_shares = usual_coverage(history, thresholds)
    for name, share in profile.coverage().items():
        usual = usual_shares.get(name)
        missing = Share(share.total - share.number, share.total)
        if usual is not None and is_risen(missing, 1 - usual, thresholds.fields):
            text = f"{share.number} of {share.total} items have a value in {name}; usually {usual:.0%}"
            found.append(Finding(Kind.FIELD_MISSING, Cause.SITE_CHANGED, name, share.value, usual, text))
    return sorted(found, key=lambda finding: finding.now - finding.usual)[:_FIELDS_NAMED]


def _page_bytes(profile: Profile, history: Sequence[Profile], thresholds: Thresholds) -> Iterator[Finding]:
    sizes = [past.page_bytes / past.content_pages for past in history if past.content_pages]
    sizes = sizes[-thresholds.runs :]
    if thresholds.page_bytes is None or profile.content_pages < _PAGES_FOR_A_MEAN_SIZE or not sizes:
        return
    now, usual = profile.page_bytes / profile.content_pages, median(sizes)
    if now < thresholds.page_bytes * usual and _is_rarely_so_low(now, sizes):
        text = f"A page has {now:.0f} bytes on average; usually {usual:.0f}"
        yield Finding(Kind.SMALLER_PAGES, Cause.SITE_CHANGED, "bytes", now, usual, text)


# -- causes ----------------------------------------------------------------------------------------


def cause_of(profile: Profile) -> Cause:
    """Given a run that gave too little, return what is likely behind it."""
    odd_pages = profile.empty_pages + profile.raised_pages
    if profile.failed_requests > odd_pages:
        return _cause_of_failure(max(profile.failed, key=profile.failed.__getitem__))
    if odd_pages or (profile.parsed_pages and not profile.item_pages):
        return Cause.SITE_CHANGED
    return Cause.FEWER_PAGES if profile.parsed_pages else Cause.NO_REQUESTS


def _cause_of_failure(failure: str) -> Cause:
    kind, _, reason = failure.partition("/")
    if reason == "dns":
        return Cause.DNS
    if kind == "broken":
        return Cause.UNREACHABLE if reason in _SILENT else Cause.BROKEN
    return Cause(kind) if kind in set(Cause) else Cause.UNUSABLE


# -- figures ---------------------------------------------------------------------------------------


class Share(NamedTuple):
    """So many of so many."""

    number: int
    total: int

    @property
    def value(self) -> float:
        """The share, from 0 to 1. Only of something."""
        return self.number / self.total


def is_risen(share: Share, usual: float, threshold: float | None) -> bool:
    """Return whether a share is above the usual one by more than the threshold, and not by chance."""
    if threshold is None or not share.total:
        return False
    return share.value > usual + threshold and chance_of(share, usual) < _CHANCE


def chance_of(share: Share, usual: float) -> float:
    """Return at most how likely so high a share is while the usual one is true.

    Chernoff's bound for the binomial distribution.
    """
    usual, value = max(usual, _RAREST), share.value
    if value <= usual:
        return 1.0
    divergence = value * log(value / usual)
    if value < 1:
        divergence += (1 - value) * log((1 - value) / (1 - usual))
    return exp(-share.total * divergence)


def _usual(past: Iterable[Share], thresholds: Thresholds) -> float | None:
    """Return the median of the last shares; None if too little is known."""
    last = [share for share in past if share.total][-thresholds.runs :]
    if len(last) < RUNS_NEEDED and sum(share.total for share in last) < _THINGS_NEEDED:
        return None
    return median(share.value for share in last)


def _is_rarely_so_low(now: float, past: Sequence[float]) -> bool:
    return 4 * sum(value <= now for value in past) <= len(past)
