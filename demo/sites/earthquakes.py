"""The local copy of the USGS feed of all earthquakes of a day."""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from demo.sites.page import Page, published_at, text_page
from demo.sites.revision import FIRST, Revision, last_changes

FEED = "/earthquakes/feed/v1.0/summary/all_day.geojson"
ROBOTS = "User-agent: *\nDisallow: /earthquakes/search/\nDisallow: /fdsnws/event/1/query\n"
SITE = "https://earthquake.usgs.gov/"
DAY_OBSERVED = datetime(2025, 1, 5, tzinfo=UTC)
NETWORKS = ("nc", "ci", "ak", "us", "uw", "hv", "tx", "pr")
PLACES = (
    "The Geysers, CA",
    "Anza, CA",
    "Pāhala, Hawaii",
    "Nikiski, Alaska",
    "Guánica, Puerto Rico",
    "Ñuñoa, Chile",
    "Þorlákshöfn, Iceland",
    "Mentone, Texas",
)
BEARINGS = ("N", "NNE", "E", "SE", "SSW", "W", "WNW", "NW")


class EarthquakesSite:
    """``count`` events of one day, newest first; a revision revises some of them."""

    name = "earthquakes"
    base_path = ""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path, return the feed or robots.txt."""
        if path == "/robots.txt":
            return text_page(ROBOTS, "text/plain")
        if path != FEED:
            return None
        features = self.features(revision)
        bounds = [feature["geometry"]["coordinates"] for feature in features]
        collection = {
            "type": "FeatureCollection",
            "metadata": {
                "generated": milliseconds(published_at(revision.number)),
                "url": SITE.rstrip("/") + FEED,
                "title": "USGS All Earthquakes, Past Day",
                "status": 200,
                "api": "1.14.1",
                "count": len(features),
            },
            "features": features,
            "bbox": [*map(min, zip(*bounds, strict=True)), *map(max, zip(*bounds, strict=True))],
        }
        # The real feed is UTF-8 and does not say so: its content type names no charset.
        text = json.dumps(collection, ensure_ascii=False, separators=(",", ":"))
        return text_page(text, "application/json", revision.number)

    def features(self, revision: Revision = FIRST) -> list[dict[str, Any]]:
        """Return every event at ``revision`` as a GeoJSON feature."""
        changes = last_changes(self.name, self.seed, self.count, revision)
        return [self._feature(number, change) for number, change in enumerate(changes)]

    def _feature(self, number: int, last_change: int) -> dict[str, Any]:
        random = Random(f"{self.seed}:earthquake:{number}")
        network = random.choice(NETWORKS)
        code = f"{random.randrange(10**7):07d}{number:03d}"
        event = network + code
        seconds_of_day = 86400 * (1 - (number + random.random()) / self.count)
        happened = DAY_OBSERVED + timedelta(seconds=seconds_of_day)
        measured = round(random.gammavariate(2.2, 0.8) - 0.4, 2)
        magnitude = None if random.random() < 0.02 else round(measured + 0.01 * last_change, 2)
        reviewed = random.random() < 0.3 or last_change > 1
        place = f"{random.randint(1, 90)} km {random.choice(BEARINGS)} of {random.choice(PLACES)}"
        felt = random.randint(1, 400) if measured > 3 else None
        properties = {
            "mag": magnitude,
            "place": place,
            "time": milliseconds(happened),
            "updated": milliseconds(happened + timedelta(minutes=random.randint(3, 300)))
            + 3_600_000 * (last_change - 1),
            "tz": None,
            "url": f"{SITE}earthquakes/eventpage/{event}",
            "detail": f"{SITE}earthquakes/feed/v1.0/detail/{event}.geojson",
            "felt": felt,
            "cdi": felt and round(random.uniform(1, 6), 1),
            "mmi": felt and round(random.uniform(1, 6), 3),
            "alert": "green" if measured > 4.5 else None,
            "status": "reviewed" if reviewed else "automatic",
            "tsunami": int(measured > 5),
            "sig": max(0, round(measured * measured * 15)),
            "net": network,
            "code": code,
            "ids": f",{event},",
            "sources": f",{network},",
            "types": ",nearby-cities,origin,phase-data,",
            "nst": random.choice((None, random.randint(4, 90))),
            "dmin": round(random.random(), 5),
            "rms": round(random.random(), 2),
            "gap": random.randint(20, 300),
            "magType": random.choice(("ml", "md", "mb")),
            "type": "quarry blast" if random.random() < 0.02 else "earthquake",
            "title": f"M {'?' if magnitude is None else magnitude} - {place}",
        }
        longitude, latitude = random.uniform(-180, 180), random.uniform(-70, 75)
        position = [round(longitude, 7), round(latitude, 7), round(random.uniform(-3, 200), 2)]
        geometry = {"type": "Point", "coordinates": position}
        return {"type": "Feature", "properties": properties, "geometry": geometry, "id": event}


def milliseconds(moment: datetime) -> int:
    """Given an aware time, return the milliseconds since 1970 in UTC."""
    return int(moment.timestamp() * 1000)
