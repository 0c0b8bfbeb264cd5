"""What a new source begins with: its spider in the house style, and example pages for want of real ones."""

import keyword
import mimetypes
import re
import zlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from urllib.parse import urljoin, urlsplit

from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes
from w3lib.url import safe_url_string

from crawler.authoring.rules import NAME_FORM, class_name, is_address
from crawler.exceptions import ScaffoldError

EXAMPLE_PAGES = {
    "listing": ("listing.html", "item.html"),
    "feed": ("feed.xml",),
    "api": ("records.json",),
    "docs": ("page.html",),
}
"""The example pages of each template; the first is where the spider starts."""


def templates() -> Traversable:
    """Return the folder of the templates, as it is shipped."""
    return files("crawler") / "templates"


def cases_of_template(template: str) -> list[str]:
    """Return the name of the case for each page of a template. Its callback is ``parse_`` and the name."""
    return [file_name.partition(".")[0] for file_name in EXAMPLE_PAGES[template]]


def check_name(name: str) -> None:
    """Raise ScaffoldError unless this can be the name of a source."""
    if not re.fullmatch(NAME_FORM, name) or keyword.iskeyword(name):
        raise ScaffoldError(
            f"the name {name!r}; allowed: {NAME_FORM}, no keyword of Python, since it will be the name of "
            "the file, of the class and of the source in every row. Choose another"
        )


def checked_address(url: str) -> str:
    """Given what a person typed, return it as a crawl asks for it. Raise ScaffoldError if it cannot."""
    if not is_address(url):
        raise ScaffoldError(
            f"the address {url!r}; allowed: an absolute http:// or https:// URL, "
            "e.g. https://books.toscrape.com/. Copy it from the browser"
        )
    parts = urlsplit(safe_url_string(url))
    return parts._replace(path=parts.path or "/", fragment="").geturl()


def spider_source(template: str, name: str, url: str) -> str:
    """Given a template, a source's name and where it starts, return the text of its file."""
    return _filled(templates() / "spiders" / f"{template}.tmpl", template, name, url)


def example_pages(template: str, name: str, url: str) -> dict[str, Response]:
    """Return pages that stand in for those of a site, each by the name of its case."""
    pages: dict[str, Response] = {}
    for case_name, file_name in zip(cases_of_template(template), EXAMPLE_PAGES[template], strict=True):
        text = _filled(templates() / "pages" / template / f"{file_name}.tmpl", template, name, url)
        address = urljoin(_base_url(template, url), f"{case_name}s/1") if pages else url
        pages[case_name] = _response(address, file_name, text.encode())
    return pages


def page_of_file(url: str, file: Path) -> Response:
    """Given an address and a file, return the file as its page. Raise ScaffoldError if there is none."""
    try:
        return _response(url, file.name, file.read_bytes())
    except OSError as error:
        raise ScaffoldError(
            f"--page {str(file)!r} cannot be read: {error}. Name a page that was saved"
        ) from error


def _response(url: str, file_name: str, body: bytes) -> Response:
    content_type = mimetypes.guess_type(file_name)[0]
    headers = {"Content-Type": content_type} if content_type else {}
    kind = responsetypes.from_args(headers=Headers(headers), url=url, body=body)
    return kind(url, headers=headers, body=body)


def _base_url(template: str, url: str) -> str:
    # A site's documentation is one of several things below its address.
    return urljoin(url, "." if template == "docs" else "/")


def _filled(source: Traversable, template: str, name: str, url: str) -> str:
    base_url = _base_url(template, url)
    # Sources start at different times, but each always at the same.
    number = zlib.crc32(name.encode())
    minute, hour, day = number % 60, number // 60 % 5 + 1, number // 300 % 7
    return Template(source.read_text(encoding="utf-8")).substitute(
        name=name,
        classname=class_name(name),
        url=url,
        domain=urlsplit(url).hostname or "",
        base_url=base_url,
        path=url.removeprefix(base_url),
        hourly=f"{minute} * * * *",
        daily=f"{minute} {hour} * * *",
        weekly=f"{minute} {hour} * * {day}",
    )
