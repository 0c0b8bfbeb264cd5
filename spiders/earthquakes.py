"""earthquake.usgs.gov: the earthquakes of the last 24 hours, all over the world."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from scrapy import Request
from scrapy.http import Response

from crawler.source import SourceSpider

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Earthquake:
    event_id: str
    url: str
    time: datetime
    updated: datetime
    magnitude: float | None
    magnitude_type: str | None
    place: str | None
    longitude: float
    latitude: float
    depth_km: float | None
    event_type: str | None
    status: str | None
    alert: str | None
    tsunami: bool
    felt_reports: int | None
    significance: int | None


class EarthquakesSpider(SourceSpider):
    """Each seismic event of the feed; ``time`` and ``updated`` are in UTC.

    Site: https://earthquake.usgs.gov/, one GeoJSON file, about 250 events.
    Refresh: hourly; the file is rewritten every minute and holds a day.
    Robots: the feeds are open to all.
    Caveats: an event is revised for days (``updated``), so versions matter. The preferred id of an
    event may change when another network takes it over. Magnitude and depth may be null, magnitude
    may be negative, and quarry blasts are listed too (``event_type``).
    """

    name = "earthquakes"
    base_url = "https://earthquake.usgs.gov/"
    key = "event_id"
    schedule = "7 * * * *"
    custom_settings = {"DOWNLOAD_DELAY": 5.0, "CONCURRENT_REQUESTS_PER_DOMAIN": 1}

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.site_url("earthquakes/feed/v1.0/summary/all_day.geojson"), self.parse_feed)

    def parse_feed(self, response: Response) -> Iterator[Earthquake]:
        for feature in json.loads(response.body)["features"]:
            properties = feature["properties"]
            longitude, latitude, depth = feature["geometry"]["coordinates"]
            yield Earthquake(
                event_id=feature["id"],
                url=properties["url"],
                time=EPOCH + timedelta(milliseconds=properties["time"]),
                updated=EPOCH + timedelta(milliseconds=properties["updated"]),
                magnitude=properties.get("mag"),
                magnitude_type=properties.get("magType"),
                place=properties.get("place"),
                longitude=longitude,
                latitude=latitude,
                depth_km=depth,
                event_type=properties.get("type"),
                status=properties.get("status"),
                alert=properties.get("alert"),
                tsunami=bool(properties.get("tsunami")),
                felt_reports=properties.get("felt"),
                significance=properties.get("sig"),
            )
