"""The local copy of PyPI's feed of new releases: a window that moves over an endless sequence."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from html import escape
from random import Random

from demo.sites import prose
from demo.sites.page import FIRST_PUBLISHED, Page, text_page
from demo.sites.revision import FIRST, Revision, changed_count

FEED = "/rss/updates.xml"
ROBOTS = """Sitemap: https://pypi.org/sitemap.xml

User-agent: *
Disallow: /simple/
Disallow: /packages/
Disallow: /pypi/*/json
Disallow: /search*
"""


@dataclass(frozen=True, slots=True)
class Release:
    """One entry of the feed. ``published`` is in UTC."""

    project: str
    version: str
    published: datetime
    summary: str
    author: str | None

    @property
    def url(self) -> str:
        return f"https://pypi.org/project/{self.project.lower()}/{self.version}/"


def release(seed: int, number: int) -> Release:
    """Return release ``number`` of the endless sequence; numbers grow with time."""
    random = Random(f"{seed}:release:{number}")
    words = random.sample(prose.WORDS, 2)
    named = random.random() < 0.7
    return Release(
        project=f"{words[0].title()}-{words[1]}-{number}" if number % 3 else f"{words[0]}{number}",
        version=f"{random.randint(0, 9)}.{random.randint(0, 30)}{random.choice(('', '.1', 'rc1'))}",
        published=FIRST_PUBLISHED + timedelta(seconds=6 * number + random.randint(0, 5)),
        summary=prose.title(random) if random.random() < 0.95 else "",
        author=f"{words[0]}@example.org" if named else None,
    )


class PypiReleasesSite:
    """The latest ``count`` releases, newest first. A revision moves the window, none is edited."""

    name = "pypi_releases"
    base_path = ""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path, return the feed or robots.txt."""
        if path == "/robots.txt":
            return text_page(ROBOTS, "text/plain; charset=utf-8")
        if path != FEED:
            return None
        entries = "".join(map(entry, self.releases(revision)))
        text = f"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0">
  <channel>
    <title>PyPI recent updates</title>
    <link>https://pypi.org/</link>
    <description>Recent updates to the Python Package Index</description>
    <language>en</language>{entries}
  </channel>
</rss>
"""
        return text_page(text, "text/xml; charset=UTF-8", revision.number)

    def releases(self, revision: Revision = FIRST) -> list[Release]:
        """Return the releases the feed shows at ``revision``."""
        oldest = (revision.number - 1) * changed_count(self.count, revision.share)
        newest_first = reversed(range(oldest, oldest + self.count))
        return [release(self.seed, number) for number in newest_first]


def entry(shown: Release) -> str:
    author = f"\n      <author>{shown.author}</author>" if shown.author else ""
    return f"""
    <item>
      <title>{shown.project} {shown.version}</title>
      <link>{shown.url}</link>
      <description>{escape(shown.summary)}</description>{author}
      <pubDate>{format_datetime(shown.published, usegmt=True)}</pubDate>
    </item>"""
