"""pypi.org: the newest releases on the Python Package Index."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from scrapy import Request
from scrapy.http import Response

from crawler.source import SourceSpider


@dataclass
class Release:
    url: str
    project: str
    version: str
    published: datetime
    summary: str | None
    author: str | None


class PypiReleasesSpider(SourceSpider):
    """Each release the feed announces; ``published`` is in UTC.

    Site: https://pypi.org/rss/updates.xml, the latest 100 releases.
    Refresh: every five minutes; at busy hours 100 releases pass in about ten.
    Robots: /rss/ is open to all; /simple/ and /search are not.
    Caveats: what rolls out of the feed is never served again, so batches are spooled first. The key
    is project and version, which is what PyPI never reuses. Summary and author may be missing.
    """

    name = "pypi_releases"
    base_url = "https://pypi.org/"
    key = ("project", "version")
    spool_first = True
    schedule = "*/5 * * * *"
    custom_settings = {"DOWNLOAD_DELAY": 5.0, "CONCURRENT_REQUESTS_PER_DOMAIN": 1}

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.site_url("rss/updates.xml"), self.parse_feed)

    def parse_feed(self, response: Response) -> Iterator[Release]:
        for entry in response.xpath("//item"):
            project, _separator, version = entry.xpath("title/text()").get("").partition(" ")
            yield Release(
                url=entry.xpath("link/text()").get(""),
                project=project,
                version=version,
                published=parsedate_to_datetime(entry.xpath("pubDate/text()").get("")),
                summary=entry.xpath("description/text()").get(),
                author=entry.xpath("author/text()").get(),
            )
