"""docs.python.org: the library reference of the current Python, page by page."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from scrapy import Request
from scrapy.http import Response

from crawler.source import SourceSpider

HEADINGS_KEPT = 200
"""Bounds the row of a page: the longest page of the reference has about 100 headings."""


@dataclass
class DocumentationPage:
    url: str
    page: str
    title: str
    version: str
    headings: list[str]
    links: int
    text_length: int


class PythonDocsSpider(SourceSpider):
    """One item for each page of the library reference that documents a module.

    ``links`` counts the distinct addresses the text refers to; ``text_length`` counts characters.

    Site: https://docs.python.org/3/, about 300 pages listed by the module index.
    Refresh: weekly; the site is built several times a day, but few pages change.
    Robots: /3/ is open to all; old and development versions are not.
    Caveats: the key is the path below the documentation root, so that a mirror or an offline copy
    is the same source. A new Python release changes ``version``, hence every page, at once. The
    pages outside library/ that the index lists are left out; the build date below is not read.
    """

    name = "python_docs"
    base_url = "https://docs.python.org/3/"
    key = "page"
    schedule = "43 5 * * 1"
    custom_settings = {"DOWNLOAD_DELAY": 1.0, "CONCURRENT_REQUESTS_PER_DOMAIN": 1}

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.site_url("py-modindex.html"), self.parse_index)

    def parse_index(self, response: Response) -> Iterator[Request]:
        links = response.css("table.modindextable a[href^='library/']::attr(href)")
        yield from response.follow_all(links.getall(), self.parse_page)

    def parse_page(self, response: Response) -> Iterator[DocumentationPage]:
        main = response.css("div[role=main]")
        if not main:
            raise ValueError(f"{response.url} is not a page of the documentation: it has no main part")
        headings = main.css("h1, h2, h3")[:HEADINGS_KEPT].xpath("normalize-space()").getall()
        title, _, product = response.css("title::text").get("").rpartition(" — ")
        yield DocumentationPage(
            url=response.url,
            page=response.url.removeprefix(self.base_url),
            title=title,
            version=product.removeprefix("Python ").removesuffix(" documentation"),
            headings=[heading.rstrip("¶ ") for heading in headings],
            links=len(set(main.css("a.reference::attr(href)").getall())),
            text_length=len(main.xpath("normalize-space()").get("")),
        )
