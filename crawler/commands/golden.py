"""``scrapy golden``: compare what saved pages give with what they must give; save a page; say anew."""

import argparse
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy import Spider
from scrapy.exceptions import UsageError
from scrapy.spiderloader import SpiderLoaderProtocol, get_spider_loader

from crawler.command import FINDINGS, FINE, OperatorCommand, print_json

if TYPE_CHECKING:
    from crawler.authoring.golden import Document
    from crawler.authoring.saved_pages import Case
    from crawler.config import Configuration

STATES = {
    "same": "as expected",
    "different": "NOT AS EXPECTED",
    "new": "nothing is expected yet; the page gives",
    "updated": "from now on expected",
}
_LINES_SHOWN = 60
_DIFFERENCES_SHOWN = 30


@dataclass(slots=True)
class Result:
    """What became of one case. ``state`` is same, different, new or updated."""

    case: "Case"
    found: "Document"
    state: str = "same"
    differences: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Whose page it is."""
        return self.case.folder.parent.name

    @property
    def is_finding(self) -> bool:
        """True if somebody has to act."""
        return self.state in ("different", "new")

    @property
    def amount(self) -> str:
        """What the page gives, in words."""
        counts = ((len(self.found["items"]), "item"), (len(self.found["links"]), "link"))
        texts = [f"{number} {name}{'s' * (number != 1)}" for number, name in counts]
        if "refused" in self.found:
            texts.append(f"{len(self.found['refused'])} REFUSED ({self.found['refused'][0]})")
        if "raised" in self.found:
            texts.append(f"RAISED {self.found['raised']}")
        return ", ".join(texts)

    def report(self) -> dict[str, object]:
        """Return the result for programs."""
        return {
            "case": self.case.name,
            "state": self.state,
            "items": len(self.found["items"]),
            "links": len(self.found["links"]),
            "refused": self.found.get("refused", []),
            "raised": self.found.get("raised"),
            "differences": self.differences,
        }


class Command(OperatorCommand):
    """Everything is offline but ``--save``."""

    def syntax(self) -> str:
        """Return the form of the command line."""
        return "[options] [SOURCE ...]"

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "Parse the saved pages of a source and compare with what is expected"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "Parse the saved pages in tests/sites/SOURCE with the spider's own callbacks, offline, and "
            "compare items and links with expected.json. With --update, write what they give as what is "
            "expected. With --save, first fetch one page politely and add it. "
            "Examples: scrapy golden books; scrapy golden books --update; "
            "scrapy golden books --save https://books.toscrape.com/ --callback parse_listing"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("sources", nargs="*", metavar="SOURCE", help="whose pages (default: all)")
        parser.add_argument("--update", action="store_true", help="expect what the pages give now")
        parser.add_argument(
            "--page", action="append", default=[], metavar="FILE", help="only this saved page (repeatable)"
        )
        parser.add_argument("--save", metavar="URL", help="fetch this page and add it to the source's")
        parser.add_argument("--callback", metavar="NAME", help="with --save: the callback that it is for")
        parser.add_argument(
            "--cb-kwargs", default="{}", metavar="JSON", help="with --save: what the callback gets beside it"
        )
        parser.add_argument(
            "--case", metavar="NAME", help="with --save: the folder (default: the callback's)"
        )
        parser.add_argument("--force", action="store_true", help="with --save: replace the case of that name")

    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """Save a page if asked to; then parse and compare, or write, what was named."""
        from crawler.authoring.checkout import current_checkout
        from crawler.authoring.saved_pages import cases_of

        assert self.settings is not None
        loader = get_spider_loader(self.settings)
        sources = _known_sources(loader, opts.sources)
        saved_pages = current_checkout().saved_pages
        if opts.save:
            cases = [self._saved(loader, saved_pages, opts)]
        else:
            _refuse_options_of_save(opts)
            cases = _chosen([case for name in sources for case in cases_of(saved_pages / name)], opts.page)
        results = list(self._results(loader, cases, update=opts.update))
        is_part = bool(opts.save or opts.page)
        without = [] if is_part else sorted(set(sources) - {result.source for result in results})
        if opts.json:
            print_json([result.report() for result in results])
        else:
            _print_results(results)
            _print_next_steps(results, without, is_part=is_part)
        return FINDINGS if without or any(result.is_finding for result in results) else FINE

    def _results(
        self, loader: SpiderLoaderProtocol, cases: list["Case"], *, update: bool
    ) -> Iterator[Result]:
        from crawler.authoring.differences import differences
        from crawler.authoring.golden import expect, expected_of, parse, spider_of

        assert self.settings is not None
        for case in cases:
            spider = spider_of(loader.load(case.folder.parent.name), self.settings)
            result, expected = Result(case, parse(spider, case)), expected_of(case)
            if expected != result.found:
                result.state = "new" if expected is None else "different"
                result.differences = [] if expected is None else differences(expected, result.found)
                if update:
                    expect(case, result.found)
                    result.state = "updated"
            yield result

    def _saved(self, loader: SpiderLoaderProtocol, saved_pages: Path, opts: argparse.Namespace) -> "Case":
        """Fetch the page of ``--save`` and add it to its source's."""
        from crawler.authoring.one_page import fetch
        from crawler.authoring.saved_pages import case_of, save_case

        assert self.settings is not None
        if len(opts.sources) != 1 or opts.page:
            raise UsageError("--save takes one source, and no --page", print_help=False)
        source, url = opts.sources[0], _address(opts.save)
        spidercls = loader.load(source)
        callback = _callback(spidercls, opts.callback)
        folder = _free_folder(saved_pages / source, opts.case, callback, is_forced=opts.force)
        cb_kwargs = _keyword_arguments(opts.cb_kwargs)
        response = fetch(url, self.settings, spidercls)
        case = case_of(response, folder, callback=callback, origin="fetched", cb_kwargs=cb_kwargs)
        save_case(case, response.body)
        if not opts.json:
            print(f"saved {os.path.relpath(case.page_path)} ({len(response.body)} bytes, for {callback})")
        return case


def _known_sources(loader: SpiderLoaderProtocol, names: list[str]) -> list[str]:
    known = sorted(loader.list())
    for name in names:
        if name not in known:
            raise UsageError(f"there is no spider {name!r}; allowed: {', '.join(known)}", print_help=False)
    return names or known


def _refuse_options_of_save(opts: argparse.Namespace) -> None:
    for option, given in (
        ("--callback", opts.callback),
        ("--case", opts.case),
        ("--force", opts.force),
        ("--cb-kwargs", opts.cb_kwargs != "{}"),
    ):
        if given:
            raise UsageError(f"{option} is for a page that is saved; add --save URL", print_help=False)


def _chosen(cases: list["Case"], pages: list[str]) -> list["Case"]:
    """Return the cases of the files that ``--page`` names: a saved page, or the folder of one."""
    if not pages:
        return cases
    chosen = []
    for page in pages:
        path = Path(page).resolve()
        named = [case for case in cases if path in (case.folder.resolve(), case.page_path.resolve())]
        if not named:
            known = ", ".join(os.path.relpath(case.page_path) for case in cases) or "none yet"
            raise UsageError(f"--page {page!r} is no saved page; allowed: {known}", print_help=False)
        chosen += named
    return chosen


def _callback(spidercls: type[Spider], wanted: str | None) -> str:
    from crawler.authoring.golden import callbacks_of

    known = callbacks_of(spidercls)
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted not in known:
        problem = "--callback is missing" if wanted is None else f"--callback {wanted!r} is none"
        message = f"{problem} of {spidercls.__name__}; allowed: {', '.join(known) or 'none yet'}"
        raise UsageError(message, print_help=False)
    return wanted


def _free_folder(source: Path, wanted: str | None, callback: str, *, is_forced: bool) -> Path:
    """Return the folder of the new case: the one wanted, or one that is free, after the callback."""
    if wanted is None:
        base = callback.removeprefix("parse").strip("_") or callback
        names = (base if number == 1 else f"{base}_{number}" for number in range(1, 1000))
        return next(source / name for name in names if is_forced or not (source / name).exists())
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", wanted):
        message = f"--case {wanted!r}; allowed: small letters, digits, dashes and underscores"
        raise UsageError(message, print_help=False)
    if (source / wanted).exists() and not is_forced:
        message = (
            f"{os.path.relpath(source / wanted)} is there; name another case, or replace it with --force"
        )
        raise UsageError(message, print_help=False)
    return source / wanted


def _keyword_arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        message = f"--cb-kwargs {text!r}; allowed: a JSON object, e.g. '{{\"page\": 2}}'"
        raise UsageError(message, print_help=False)
    return value


def _address(text: str) -> str:
    from crawler.authoring.rules import is_address

    if not is_address(text):
        raise UsageError(f"--save {text!r}; allowed: an http:// or https:// URL", print_help=False)
    return text


def _print_results(results: list[Result]) -> None:
    from crawler.authoring.golden import json_text

    for result in results:
        print(f"{result.case.name}: {STATES[result.state]}: {result.amount}")
        if result.state == "new":
            _print_some(json_text(result.found, indent=True).splitlines(), _LINES_SHOWN)
        _print_some([f"  {line}" for line in result.differences], _DIFFERENCES_SHOWN)


def _print_some(lines: list[str], most: int) -> None:
    for line in lines[:most]:
        print(line)
    if len(lines) > most:
        print(f"  ... and {len(lines) - most} lines more")


def _print_next_steps(results: list[Result], without: list[str], *, is_part: bool) -> None:
    for name in without:
        print(f"Next: {name} has no saved page: scrapy golden {name} --save URL --callback NAME")
    for source, link in () if is_part else _pages_to_save(results):
        options = f"--save {link['url']} --callback {link['callback']}"
        print(f"Next: a page for {link['callback']}: scrapy golden {source} {options}")
    findings = [result for result in results if result.is_finding]
    if any(not (result.found["items"] or result.found["links"]) for result in findings):
        print("Next: where nothing is found, look at the selectors of the callback")
    if findings:
        names = " ".join(sorted({result.source for result in findings}))
        print(f"Next: correct the spider; or, if what was found is right: scrapy golden {names} --update")


def _pages_to_save(results: list[Result]) -> Iterator[tuple[str, "Document"]]:
    """Yield the first link to each callback that no page was saved for, with its source."""
    served = {(result.source, result.case.callback) for result in results}
    for result in results:
        for link in result.found["links"]:
            if (result.source, link["callback"]) not in served:
                served.add((result.source, link["callback"]))
                yield result.source, link
