"""``scrapy sources``: what sources there are, whether each keeps the rules, and the page about them."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.spiderloader import get_spider_loader

from crawler.command import FINDINGS, FINE, OperatorCommand, print_json

if TYPE_CHECKING:
    from crawler.authoring.catalogue import Description
    from crawler.checks import Finding
    from crawler.config import Configuration


class Command(OperatorCommand):
    """Reads the spiders' classes and saved pages; fetches nothing."""

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "List the sources, check them against the rules, write the page about them"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "List the sources with their schedule, key and site. --check holds each to the rules of "
            "docs/add-a-site.md: names, address, key, delay, schedule, docstring, start, saved pages. "
            "--write writes the page about them. "
            "Examples: scrapy sources; scrapy sources --check; scrapy sources --write docs/sources.md"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("--check", action="store_true", help="report what breaks a rule, and what to do")
        parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of all sources")

    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """List, check or write."""
        from crawler.authoring.catalogue import described, page_of
        from crawler.authoring.checkout import current_checkout
        from crawler.authoring.rules import files_without_spider, findings

        assert self.settings is not None
        loader = get_spider_loader(self.settings)
        spiders = [loader.load(name) for name in sorted(loader.list())]
        sources = [described(spidercls, self.settings) for spidercls in spiders]
        found: list[Finding] = []
        if opts.check:
            checkout = current_checkout()
            found = files_without_spider(checkout.spiders, loader.list())
            found += findings(spiders, self.settings, checkout.saved_pages)
        if opts.write is not None:
            opts.write.write_text(page_of(sources), encoding="utf-8")
        if opts.json:
            print_json(
                {
                    "sources": [asdict(source) for source in sources],
                    "findings": [finding._asdict() for finding in found],
                }
            )
        else:
            _print(sources, found, opts)
        return FINDINGS if found else FINE


def _print(sources: list["Description"], found: list["Finding"], opts: argparse.Namespace) -> None:
    if opts.write is not None:
        print(f"wrote {os.path.relpath(opts.write)}: {len(sources)} sources")
    if opts.check:
        for finding in found:
            print(f"{finding.id}: {finding.message}; {finding.hint}")
        print(f"{len(sources)} sources: {len(found) or 'no'} finding{'s' * (len(found) != 1)}")
    elif opts.write is None:
        width = max([len("source"), *(len(source.name) for source in sources)])
        print(f"{'source':{width}}  {'schedule':14}  {'key':20}  site")
        for source in sources:
            key = ", ".join(source.key)
            print(f"{source.name:{width}}  {source.schedule or 'by hand':14}  {key:20}  {source.base_url}")
