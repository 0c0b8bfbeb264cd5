"""One odd page of a source on the card: bounded whatever the page holds, whole or not there at all."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy.http import HtmlResponse, Response

from crawler.drift import samples
from crawler.drift.comparison import Cause, Finding, Kind
from crawler.drift.samples import MAX_BYTES, SampleBook, Why, sample_of, write_sample

URL = "https://shop.example/1"


def finding(kind: Kind, cause: Cause = Cause.SITE_CHANGED) -> Finding:
    return Finding(kind, cause, "items", 0.0, 1.0, "text")


def written(path: Path, response: Response, **changed: Any) -> dict[str, Any]:
    given_ = {"source": "shop", "run_id": "run-1", "findings": (finding(Kind.ZERO_ITEMS),)} | changed
    write_sample(path, sample_of(response, Why.EMPTY), **given_)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_a_sample_has_what_a_diagnosis_needs(tmp_path: Path) -> None:
    response = HtmlResponse(
        URL,
        status=203,
        headers={"Content-Type": "text/html; charset=euc-kr", "Server": "nginx", "Set-Cookie": "id=secret"},
        body="<p>한국어</p>".encode("euc-kr"),
    )
    document = written(tmp_path / "samples" / "shop.json", response)
    page = document["page"]
    assert page["seen_at"].endswith("+00:00")
    assert document == {
        "source": "shop",
        "run_id": "run-1",
        "findings": [finding(Kind.ZERO_ITEMS).as_json()],
        "page": {
            "url": URL,
            "status": 203,
            "headers": {"Content-Type": "text/html; charset=euc-kr", "Server": "nginx"},
            "seen_at": page["seen_at"],
            "why": "empty",
            "body_bytes": 13,
            "head": "<p>한국어</p>",
        },
    }


@given(st.binary(max_size=300), st.integers(1, 2000))
def test_no_page_makes_it_larger_than_its_bound(tmp_path_factory: Any, pattern: bytes, times: int) -> None:
    path = tmp_path_factory.mktemp("samples") / "shop.json"
    body = pattern * times
    document = written(path, Response(URL, body=body))
    assert path.stat().st_size <= MAX_BYTES
    assert document["page"]["body_bytes"] == len(body)
    if len(body) < MAX_BYTES // 8:
        assert document["page"]["head"] == body.decode("utf-8", "replace")


def test_addresses_headers_and_findings_are_bounded_too(tmp_path: Path) -> None:
    headers = {f"X-{number}": "x" * 1000 for number in range(100)}
    response = Response(f"{URL}?{'x' * 50_000}", headers=headers, body=b"\x00" * 100_000)
    many = tuple(finding(Kind.FIELD_MISSING) for _ in range(30))
    document = written(tmp_path / "shop.json", response, findings=many)
    assert (tmp_path / "shop.json").stat().st_size <= MAX_BYTES
    assert len(document["page"]["headers"]) == 8
    assert len(document["page"]["head"]) > 1000


def test_a_later_sample_replaces_an_earlier_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.json"
    written(path, Response(URL, body=b"first, and longer"))
    (tmp_path / "shop.new").write_bytes(b"left by a power cut, and longer than what follows" * 5000)
    assert written(path, Response(URL, body=b"second"))["page"]["head"] == "second"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_card_that_fails_leaves_the_earlier_sample_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.json"
    before = written(path, Response(URL, body=b"first"))

    def fail(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("crawler.drift.samples.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        written(path, Response(URL, body=b"second"))
    assert json.loads(path.read_text()) == before


@pytest.mark.parametrize(
    ("findings", "kept", "best"),
    [
        ([finding(Kind.ZERO_ITEMS)], [Why.ONLY_LINKS, Why.EMPTY], Why.EMPTY),
        ([finding(Kind.ZERO_ITEMS)], [Why.ONLY_LINKS, Why.FAILED], Why.ONLY_LINKS),
        ([finding(Kind.ZERO_ITEMS, Cause.BLOCKED)], [Why.ONLY_LINKS, Why.FAILED], Why.FAILED),
        ([finding(Kind.FIELD_MISSING)], [Why.RAISED, Why.EMPTY, Why.LACKING], Why.LACKING),
        ([finding(Kind.DEAD_LETTERS)], [Why.RAISED, Why.INVALID], Why.INVALID),
        ([finding(Kind.ERRORS)], [Why.EMPTY, Why.RAISED, Why.FAILED], Why.RAISED),
        ([finding(Kind.ERRORS, Cause.BROKEN)], [Why.EMPTY, Why.RAISED, Why.FAILED], Why.FAILED),
        # The worst has no page: the next one has.
        ([finding(Kind.FEWER_ITEMS, Cause.DNS), finding(Kind.FIELD_MISSING)], [Why.LACKING], Why.LACKING),
        ([finding(Kind.EMPTY_PAGES)], [Why.RAISED], None),
        ([], [Why.RAISED], None),
    ],
)
def test_the_page_that_is_kept_is_one_that_shows_what_was_found(
    findings: list[Finding], kept: list[Why], best: Why | None
) -> None:
    book = SampleBook()
    for why in kept:
        book.offer(why, Response(URL, body=why.encode()))
    sample = book.best_for(tuple(findings))
    assert (sample.why if sample else None) == best


def test_every_kind_of_finding_has_a_page_that_shows_it() -> None:
    assert samples._BEST.keys() == set(Kind)
