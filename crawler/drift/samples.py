"""One odd page per source, kept on the card for whoever has to find out what the site changed."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from scrapy.http import Response

from crawler import sqlite
from crawler.drift.comparison import Cause, Finding, Kind

MAX_BYTES = 64 * 1024
"""Bounds the file of a sample, and with it what of a page is held in RAM for each ``Why``."""

_ADDRESS_CHARACTERS = 4096
_HEADERS_CHARACTERS = 8192
# It names whoever asked, and is of no use for diagnosis.
_NOT_KEPT = frozenset({"set-cookie"})


class Why(StrEnum):
    """What is odd about a page."""

    FAILED = "failed"
    """Its status is an error, or it is a challenge."""
    RAISED = "raised"
    """The spider's callback raised."""
    EMPTY = "empty"
    """It gave neither items nor links."""
    ONLY_LINKS = "only_links"
    """It gave links and no items: nothing odd, unless nothing else came."""
    LACKING = "lacking"
    """An item of it lacks what items usually have."""
    INVALID = "invalid"
    """An item of it broke its own types."""


_FAILURES = frozenset({Cause.BLOCKED, Cause.BROKEN, Cause.GONE, Cause.FORBIDDEN, Cause.UNUSABLE})
# Which page shows best what a finding is about.
_BEST: dict[Kind, tuple[Why, ...]] = {
    Kind.ZERO_ITEMS: (Why.EMPTY, Why.RAISED, Why.ONLY_LINKS, Why.FAILED),
    Kind.FEWER_ITEMS: (Why.RAISED, Why.EMPTY, Why.ONLY_LINKS, Why.FAILED),
    Kind.ERRORS: (Why.RAISED, Why.FAILED),
    Kind.EMPTY_PAGES: (Why.EMPTY,),
    Kind.DEAD_LETTERS: (Why.INVALID,),
    Kind.FIELD_MISSING: (Why.LACKING,),
    Kind.SMALLER_PAGES: (Why.EMPTY, Why.RAISED, Why.LACKING, Why.INVALID),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The head of a page, as it came. ``seen_at`` is ISO 8601 in UTC; ``body_bytes`` counts all of it."""

    url: str
    status: int
    headers: Mapping[str, str]
    seen_at: str
    why: Why
    body_bytes: int
    head: str


class SampleBook:
    """At most one bounded page for each way of being odd. Reactor thread only."""

    def __init__(self) -> None:
        self._samples: dict[Why, Sample] = {}

    def offer(self, why: Why, response: Response | None) -> None:
        """Keep the page if it is the first of its kind."""
        if why not in self._samples:
            self.put(why, response)

    def put(self, why: Why, response: Response | None) -> None:
        """Keep the page instead of another of its kind."""
        if response is not None:
            self._samples[why] = sample_of(response, why)

    def best_for(self, findings: tuple[Finding, ...]) -> Sample | None:
        """Given a run's findings, the worst first, return the page that shows best what they are about."""
        for finding in findings:
            reasons = _BEST[finding.kind]
            if finding.cause in _FAILURES:
                reasons = (Why.FAILED, *reasons)
            for why in reasons:
                if why in self._samples:
                    return self._samples[why]
        return None


def sample_of(response: Response, why: Why) -> Sample:
    """Given a response, return what is kept of it."""
    encoding = getattr(response, "encoding", None) or "utf-8"
    return Sample(
        url=response.url[:_ADDRESS_CHARACTERS],
        status=response.status,
        headers=_bounded({str(name): str(text) for name, text in response.headers.to_unicode_dict().items()}),
        seen_at=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        body_bytes=len(response.body),
        head=response.body[:MAX_BYTES].decode(encoding, "replace"),
    )


def write_sample(
    path: Path, sample: Sample, *, source: str, run_id: str, findings: tuple[Finding, ...]
) -> None:
    """Replace the source's sample on the card, all of it or nothing. Raise OSError."""
    document = {
        "source": source,
        "run_id": run_id,
        "findings": [finding.as_json() for finding in findings],
        "page": asdict(sample),
    }
    text = _fitted(document, sample)
    unfinished = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    with open(sqlite.open_file(unfinished), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sqlite.sync_folder(path.parent)


def _fitted(document: dict[str, Any], sample: Sample) -> bytes:
    """Return the document as JSON, with less of the page's head if it would be too large."""
    while True:
        document["page"] = asdict(sample)
        text = json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "replace")
        if len(text) <= MAX_BYTES or not sample.head:
            return text
        sample = replace(sample, head=sample.head[: len(sample.head) * 3 // 4])


def _bounded(headers: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    room = _HEADERS_CHARACTERS
    for name, value in headers.items():
        if name.lower() not in _NOT_KEPT:
            room -= len(name) + len(value)
            if room < 0:
                break
            kept[name] = value
    return kept
