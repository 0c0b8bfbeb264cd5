"""What every source is held to: names, address, key, pace, schedule, docstring, start, saved pages.

Each rule returns findings in the form of ``crawler.checks``. Nothing is fetched and nothing is written.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from scrapy import Request, Spider
from scrapy.settings import Settings

from crawler import schedule
from crawler.authoring.catalogue import TERMS, described, item_fields
from crawler.authoring.golden import expected_of, spider_of
from crawler.authoring.saved_pages import cases_of
from crawler.checks import Finding
from crawler.drift.comparison import problems_of_thresholds
from crawler.exceptions import CaseError
from crawler.source import SourceSpider, revisit_of

NAME_FORM = "[a-z][a-z0-9_]*"
ELSEWHERE = "http://127.0.0.1:9/copy/"
"""A copy of any site: what a spider asks for at its start must move there with ``base_url``."""

_OUTPUTS_OF_START = 1000
_START_SECONDS = 5.0


class Source(NamedTuple):
    """A spider's class, and what it is judged with."""

    spidercls: type[Spider]
    settings: Settings
    saved_pages: Path

    @property
    def name(self) -> str:
        """The source's name."""
        return self.spidercls.name


Rule = Callable[[Source], Iterable[Finding]]


def findings(spiders: Iterable[type[Spider]], settings: Settings, saved_pages: Path) -> list[Finding]:
    """Given the project's spiders, its settings and the folder of saved pages, return what is wrong."""
    sources = [Source(spidercls, settings, saved_pages) for spidercls in spiders]
    return [finding for source in sources for rule in RULES for finding in rule(source)]


def files_without_spider(folder: Path, names: Iterable[str]) -> list[Finding]:
    """Given the folder of the spiders and the names Scrapy knows, return the files that hold none of them."""
    stems = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    return [
        Finding(
            "CR-E101",
            f"{folder.name}/{stem}.py holds no spider of the name {stem!r}",
            f'let its class have name = "{stem}", or remove the file',
        )
        for stem in sorted(stems - set(names))
    ]


def class_name(name: str) -> str:
    """Given a source's name, return what its class is called."""
    return "".join(part.capitalize() for part in name.split("_")) + "Spider"


def is_address(text: str) -> bool:
    """Return whether the text is an absolute http or https URL."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in text
        )
    except ValueError:
        return False


def has_house_names(source: Source) -> Iterator[Finding]:
    """The file, the name and the class are one word."""
    spidercls, name = source.spidercls, source.name
    file = spidercls.__module__.rpartition(".")[2]
    if not re.fullmatch(NAME_FORM, name):
        yield Finding("CR-E101", f"the spider name {name!r}", f"allowed: {NAME_FORM}; rename it and its file")
    if file != name:
        yield Finding("CR-E101", f"the spider {name!r} is in {file}.py", f"move it to {name}.py")
    if spidercls.__name__ != class_name(name):
        yield Finding(
            "CR-E101",
            f"the class of the spider {name!r} is {spidercls.__name__}",
            f"call it {class_name(name)}",
        )
    if not issubclass(spidercls, SourceSpider):
        yield Finding(
            "CR-E101",
            f"{spidercls.__name__} is no SourceSpider",
            "derive it from crawler.source.SourceSpider, so that -a base_url= moves it to a copy",
        )


def has_address(source: Source) -> Iterator[Finding]:
    """``base_url`` is the live site."""
    base_url = getattr(source.spidercls, "base_url", "")
    if not is_address(base_url) or not base_url.endswith("/"):
        yield Finding(
            "CR-E102",
            f"base_url={base_url!r} of {source.name!r}",
            "allowed: an absolute http:// or https:// URL that ends with a slash",
        )


def has_key(source: Source) -> Iterator[Finding]:
    """The key is chosen on purpose, and every item has it."""
    spidercls = source.spidercls
    owner = next((each for each in spidercls.__mro__ if "key" in vars(each)), SourceSpider)
    if owner is SourceSpider:
        yield Finding(
            "CR-E103",
            f"{source.name!r} declares no key",
            'declare the field, or fields, that name a thing on the site, if only key = "url"',
        )
    items = item_fields(spidercls)
    if not items:
        yield Finding(
            "CR-E103",
            f"no callback of {source.name!r} says which item it yields",
            "declare the item as a dataclass, and the callback as -> Iterator[THE_ITEM]",
        )
    key = getattr(spidercls, "key", "url")
    for item, names in items.items():
        for field in (key,) if isinstance(key, str) else key:
            if field not in names:
                yield Finding(
                    "CR-E103",
                    f"key={key!r} of {source.name!r}: {item} has no field {field!r}",
                    f"allowed: {', '.join(names)}",
                )


def is_polite(source: Source) -> Iterator[Finding]:
    """No spider is faster than the project allows, and none ignores robots.txt."""
    own = source.settings.copy()
    source.spidercls.update_settings(own)
    floor = lowest_delay_seconds(source.settings)
    delay = own.getfloat("DOWNLOAD_DELAY")
    if delay < floor:
        yield Finding(
            "CR-E104",
            f"DOWNLOAD_DELAY={delay:g} in custom_settings of {source.name!r}",
            f"allowed: {floor:g} seconds or more",
        )
    if not own.getbool("ROBOTSTXT_OBEY"):
        yield Finding(
            "CR-E104", f"ROBOTSTXT_OBEY is off for {source.name!r}", "remove it from custom_settings"
        )


def lowest_delay_seconds(settings: Settings) -> float:
    """Return the delay that no spider may undercut."""
    return settings.getfloat("POLITENESS_FLOOR_SECONDS")


def has_schedule(source: Source) -> Iterator[Finding]:
    """``schedule`` is empty, or what cron understands."""
    text = getattr(source.spidercls, "schedule", "")
    if not text:
        return
    try:
        schedule.in_words(text)
    except (AttributeError, TypeError, ValueError) as error:
        yield Finding(
            "CR-E105",
            f"schedule={text!r} of {source.name!r}: {error}",
            f"allowed: {schedule.FORM}, or an empty text for a source that is not scheduled",
        )


def has_revisit(source: Source) -> Iterator[Finding]:
    """``revisit`` is one of the three words."""
    try:
        revisit_of(source.spidercls)
    except ValueError as error:
        yield Finding("CR-E109", str(error), "correct it; without it, the spider has if-changed")


def has_thresholds(source: Source) -> Iterator[Finding]:
    """``drift`` has thresholds only, with values they may have."""
    for problem in problems_of_thresholds(getattr(source.spidercls, "drift", {})):
        yield Finding("CR-E110", f"{problem} (in {source.name!r})", "correct it; docs/drift.md has them all")


def says_what_to_know(source: Source) -> Iterator[Finding]:
    """The docstring has its terms, and none of them is still the template's."""
    terms = described(source.spidercls).terms
    for term in TERMS:
        text = terms.get(term, "")
        if not text or "<" in text:
            state = "is still the template's" if text else "is missing"
            yield Finding(
                "CR-E106",
                f"the term {term!r} in the docstring of {source.spidercls.__name__} {state}",
                f"write a line '{term}: ...'",
            )


def starts_with_requests(source: Source) -> Iterator[Finding]:
    """``start()`` yields requests only, to where ``base_url`` points, for callbacks of the spider."""
    try:
        spider = spider_of(source.spidercls, source.settings, base_url=ELSEWHERE)
        outputs = asyncio.run(asyncio.wait_for(_outputs_of_start(spider), _START_SECONDS))
    except Exception as error:  # noqa: BLE001  whatever it is, the spider does not start
        reason = f"{type(error).__name__}: {error}"
        yield Finding("CR-E107", f"start() of {source.name!r} fails: {reason}", "correct it; it runs offline")
        return
    for problem, hint in sorted(
        {found for output in outputs for found in _problems_of_start(output, spider)}
    ):
        yield Finding("CR-E107", f"start() of {source.name!r} {problem}", hint)


async def _outputs_of_start(spider: Spider) -> list[Any]:
    outputs = []
    async for output in spider.start():
        outputs.append(output)
        if len(outputs) == _OUTPUTS_OF_START:
            break
    return outputs


def _problems_of_start(output: Any, spider: Spider) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an output of ``start()``, and what to do about it."""
    if not isinstance(output, Request):
        yield f"yields a {type(output).__name__}", "yield items from callbacks: only there they have a page"
        return
    if not output.url.startswith(ELSEWHERE):
        yield (
            f"asks for {output.url} whatever base_url is",
            'make its addresses with self.site_url("path below base_url")',
        )
    callback = output.callback or getattr(spider, "parse", None)
    if getattr(callback, "__self__", None) is not spider:
        yield (
            f"has {getattr(callback, '__name__', callback)!r} called back, which is no method of the spider",
            "name one: a request that failed is kept with the name of its callback",
        )


def has_saved_page(source: Source) -> Iterator[Finding]:
    """At least one saved page must give an item, and none is made up."""
    folder, name = source.saved_pages / source.name, source.name
    try:
        cases = cases_of(folder)
        expected = {case.name: expected_of(case) for case in cases}
    except CaseError as error:
        yield Finding("CR-E108", str(error), f"see scrapy golden {name}")
        return
    for case in cases:
        if case.is_example:
            hint = f"--save URL --callback {case.callback} --case {case.folder.name} --force"
            yield Finding(
                "CR-E108", f"{case.name} is a page that was made up", f"save one: scrapy golden {name} {hint}"
            )
        if expected[case.name] is None:
            hint = f"look at what it gives, then: scrapy golden {name} --update"
            yield Finding("CR-E108", f"nothing is expected of {case.name}", hint)
    if not any(document and document["items"] for document in expected.values()):
        yield Finding(
            "CR-E108",
            f"no saved page of {name!r} must give an item",
            f"save one: scrapy golden {name} --save URL --callback NAME; then scrapy golden {name} --update",
        )


RULES: tuple[Rule, ...] = (
    has_house_names,
    has_address,
    has_key,
    is_polite,
    has_schedule,
    has_revisit,
    has_thresholds,
    says_what_to_know,
    starts_with_requests,
    has_saved_page,
)
