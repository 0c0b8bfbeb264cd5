"""``scrapy genspider``: a spider in the house style, a saved page of its site, and what to do next."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scrapy.commands import genspider
from scrapy.commands.edit import _edit_file
from scrapy.exceptions import UsageError

from crawler.command import MISUSE, start_up_problem
from crawler.exceptions import CrawlerError, PageUnreachable, ScaffoldError

if TYPE_CHECKING:
    from scrapy.http import Response

    from crawler.authoring.checkout import Checkout

TEMPLATES = ("listing", "feed", "api", "docs")


class Site(NamedTuple):
    """Where a source starts, the pages of it that are saved at once, and where these came from."""

    url: str
    pages: "dict[str, Response]"
    origin: str


class Command(genspider.Command):
    """Scrapy's command with the project's templates. Exit status 0: written; 2: nothing was written."""

    requires_project = True

    def syntax(self) -> str:
        """Return the form of the command line."""
        return "[options] -t listing|feed|api|docs NAME URL"

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "Make the spider of a new source, with a saved page of its site"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "Write spiders/NAME.py and save the page at URL in tests/sites/NAME, fetched politely. "
            "listing: pages that list things, each with a page of its own; feed: RSS or Atom; api: JSON; "
            "docs: pages that link to each other. "
            "Example: scrapy genspider -t listing books https://books.toscrape.com/"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options to Scrapy's."""
        super().add_options(parser)
        parser.add_argument(
            "-t",
            "--template",
            choices=TEMPLATES,
            default=TEMPLATES[0],
            help="the kind of site (default: listing)",
        )
        parser.add_argument("--page", metavar="FILE", help="save this file as the page at URL; fetch nothing")
        parser.add_argument("--force", action="store_true", help="overwrite what is there")

    @property
    def templates_dir(self) -> str:
        """Where Scrapy looks for templates to list and to dump."""
        from crawler.authoring.scaffold import templates

        return str(templates() / "spiders")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Check everything, get the page, then write."""
        assert self.settings is not None
        if opts.list or opts.dump:
            super().run(args, opts)
            return
        if len(args) != 2:
            message = "give a name and an address: scrapy genspider -t listing NAME URL"
            raise UsageError(message, print_help=False)
        try:
            spider_file = self._generate(args[0], args[1], opts)
        except CrawlerError as error:
            sys.stderr.write(f"{error}\n")
            self.exitcode = MISUSE
            return
        if opts.edit:
            self.exitcode = _edit_file(self.settings["EDITOR"], spider_file)

    def _generate(self, name: str, url: str, opts: argparse.Namespace) -> Path:
        """Write the spider and its pages, say what was written, return the spider's file."""
        from crawler.authoring.checkout import current_checkout
        from crawler.authoring.scaffold import check_name, checked_address, spider_source

        assert self.settings is not None
        problem = start_up_problem(self.settings)
        if problem is not None:
            raise ScaffoldError(problem)
        check_name(name)
        address = checked_address(url)
        checkout = current_checkout()
        spider_file = checkout.spiders / f"{name}.py"
        if not opts.force:
            _check_free(spider_file, checkout.saved_pages / name)
        site = self._site(name, address, opts)
        spider_file.write_text(spider_source(opts.template, name, site.url), encoding="utf-8")
        print(f"wrote {os.path.relpath(spider_file)}")
        _save(site, checkout, name)
        _print_next_steps(name, opts.template, site)
        return spider_file

    def _site(self, name: str, url: str, opts: argparse.Namespace) -> Site:
        """Return the page from the file of ``--page``, or from the site; if nobody answers, made up."""
        from crawler.authoring.one_page import fetch
        from crawler.authoring.saved_pages import EXAMPLE
        from crawler.authoring.scaffold import cases_of_template, example_pages, page_of_file

        assert self.settings is not None
        first = cases_of_template(opts.template)[0]
        if opts.page is not None:
            file = Path(opts.page)
            return Site(url, {first: page_of_file(url, file)}, f"file {file.name}")
        try:
            response = fetch(url, self.settings)
        except PageUnreachable as error:
            print(f"{error}. An example is saved instead of its page")
            return Site(url, example_pages(opts.template, name, url), EXAMPLE)
        if response.url != url:
            print(f"{url} leads to {response.url}: the spider starts there")
        return Site(response.url, {first: response}, "fetched")


def _check_free(*places: Path) -> None:
    taken = [os.path.relpath(place) for place in places if place.exists()]
    if taken:
        raise ScaffoldError(
            f"{' and '.join(taken)} is there already; allowed: a new name. "
            "Choose one, or overwrite with --force"
        )


def _save(site: Site, checkout: "Checkout", name: str) -> None:
    from crawler.authoring.saved_pages import case_of, save_case

    for case_name, response in site.pages.items():
        folder = checkout.saved_pages / name / case_name
        case = case_of(response, folder, callback=f"parse_{case_name}", origin=site.origin)
        save_case(case, response.body)
        print(f"wrote {os.path.relpath(case.page_path)} ({len(response.body)} bytes, {site.origin})")


def _print_next_steps(name: str, template: str, site: Site) -> None:
    from crawler.authoring.saved_pages import EXAMPLE
    from crawler.authoring.scaffold import cases_of_template

    golden = f"scrapy golden {name}"
    print(f"Next: edit spiders/{name}.py, then see what it finds: {golden}")
    cases = cases_of_template(template)
    if site.origin == EXAMPLE:
        print(
            "When the site can be reached: "
            f"{golden} --save {site.url} --callback parse_{cases[0]} --case {cases[0]} --force"
        )
    for case_name in cases:
        if case_name not in site.pages:
            print(f"The other kind of page: {golden} --save ITS-URL --callback parse_{case_name}")
