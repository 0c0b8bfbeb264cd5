"""Pages are unpacked exactly as Scrapy's own middleware unpacks them, for less."""

import gzip
import zlib
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response, TextResponse
from scrapy.responsetypes import responsetypes
from scrapy.utils.test import get_crawler

from crawler import settings
from crawler.middlewares.compression import CompressionMiddleware

TEXT = "<html><head><title>Żółw</title></head><body>雪国 and more</body></html>"
OURS = "crawler.middlewares.compression.CompressionMiddleware"
STOCK = "scrapy.downloadermiddlewares.httpcompression.HttpCompressionMiddleware"


@pytest.fixture
def crawler() -> Crawler:
    return get_crawler(Spider, {"DOWNLOAD_MAXSIZE": 100_000})


@pytest.fixture
def guesses(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies whose charset was guessed."""
    bodies: list[bytes] = []
    guess = TextResponse._body_inferred_encoding

    def noted(response: TextResponse) -> str:
        bodies.append(response.body)
        return guess(response)

    monkeypatch.setattr(TextResponse, "_body_inferred_encoding", noted)
    return bodies


def received(body: bytes, headers: dict[str, str], url: str, method: str = "GET") -> Response:
    """Return a response as Scrapy's download handlers make it."""
    request = Request(url, method=method)
    kind = responsetypes.from_args(headers=Response(url, headers=headers).headers, url=url, body=body)
    return kind(url, headers=headers, body=body, request=request, flags=["flag"], protocol="HTTP/1.1")


def unpacked(middleware: HttpCompressionMiddleware, response: Response) -> Response:
    assert response.request is not None
    result = middleware.process_response(response.request, response)
    assert isinstance(result, Response)
    return result


PACKED = {
    "gzip": gzip.compress(TEXT.encode()),
    "deflate": zlib.compress(TEXT.encode()),
    "gzip, deflate": zlib.compress(gzip.compress(TEXT.encode())),
    "unknown": b"\x01\x02\x03",
    "unknown, gzip": gzip.compress(b"\x01\x02\x03"),
    "": TEXT.encode(),
}


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize(
    "content_type", ["", "text/html", "text/html; charset=utf-8", "application/json", "image/png"]
)
@pytest.mark.parametrize("path", ["", "page.html", "page.json", "page.png"])
def test_the_result_is_that_of_scrapys_own(
    crawler: Crawler, coding: str, content_type: str, path: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": coding, "X-Other": "kept"}
    headers = {name: value for name, value in headers.items() if value}

    def outcome(kind: type[HttpCompressionMiddleware]) -> dict[str, Any]:
        response = received(PACKED[coding], headers, f"https://a.example/{path}")
        result = unpacked(kind.from_crawler(crawler), response)
        assert result.request is response.request
        return result.to_dict()

    assert outcome(CompressionMiddleware) == outcome(HttpCompressionMiddleware)


@pytest.mark.parametrize(
    ("path", "content_type"), [("page.html", "text/html"), ("page.json", "application/json")]
)
def test_no_charset_is_guessed_of_packed_bytes(
    crawler: Crawler, guesses: list[bytes], path: str, content_type: str
) -> None:
    def response() -> Response:
        headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
        return received(PACKED["gzip"], headers, f"https://a.example/{path}")

    unpacked(HttpCompressionMiddleware.from_crawler(crawler), response())
    assert guesses == [PACKED["gzip"]], "Scrapy no longer does so: this middleware can go"
    guesses.clear()
    result = unpacked(CompressionMiddleware.from_crawler(crawler), response())
    assert guesses == []
    assert result.text == TEXT
    assert set(guesses) == {TEXT.encode()}


def test_the_answer_to_a_head_request_is_left_alone(crawler: Crawler) -> None:
    response = received(b"", {"Content-Encoding": "gzip"}, "https://a.example/page.html", "HEAD")
    result = unpacked(CompressionMiddleware.from_crawler(crawler), response)
    assert isinstance(result, TextResponse)
    assert result.headers["Content-Encoding"] == b"gzip"


def test_a_page_that_unpacks_to_more_than_is_allowed_is_refused(crawler: Crawler) -> None:
    bomb = gzip.compress(b"0" * 1_000_000)
    response = received(bomb, {"Content-Encoding": "gzip"}, "https://a.example/page.html")
    with pytest.raises(IgnoreRequest, match="DOWNLOAD_MAXSIZE"):
        unpacked(CompressionMiddleware.from_crawler(crawler), response)


def test_it_has_the_place_of_scrapys_own() -> None:
    base = get_crawler(Spider).settings["DOWNLOADER_MIDDLEWARES_BASE"]
    assert settings.DOWNLOADER_MIDDLEWARES[STOCK] is None
    assert settings.DOWNLOADER_MIDDLEWARES[OURS] == base[STOCK]
