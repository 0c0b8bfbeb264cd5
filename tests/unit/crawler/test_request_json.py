"""A request comes back from JSON as it was, or it does not become JSON at all."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from scrapy import FormRequest, Request, Spider
from scrapy.http import JsonRequest, Response
from scrapy.settings import Settings
from scrapy.spidermiddlewares.metacopy import MetaCopyDetectionMiddleware

from crawler.exceptions import RequestLost, RequestRefused
from crawler.request_json import _NOTES, KEY_META, MAX_BYTES, RequestJson


class ShopSpider(Spider):
    name = "shop"

    def parse_thing(self, response: Response, **_given: Any) -> None: ...

    def failed(self, _failure: object) -> None: ...

    price = 3


def parse_anything(_response: Response) -> None: ...


SPIDER = ShopSpider()
URL = "https://shop.example/thing?id=1&name=%C3%BC#part"


@pytest.fixture
def form() -> RequestJson:
    return RequestJson(
        SPIDER, Settings({"USER_AGENT": "crawler/1 (+https://example.org/)", "DOWNLOAD_TIMEOUT": 30})
    )


def full_request() -> Request:
    return Request(
        URL,
        SPIDER.parse_thing,
        method="PUT",
        headers={"X-Token": ["a", "b"], "Cookie": b"k=\xff"},
        body=b"\x00\xff raw",
        cookies={"c": "d"},
        meta={
            "page": 3,
            "seen": ["a", None, 1.5, {"deep": True}],
            "depth": 2,
            "handle_httpstatus_list": [404],
        },
        encoding="latin-1",
        priority=7,
        errback=SPIDER.failed,
        flags=["f"],
        cb_kwargs={"number": 1, "text": "naïve 🦀 \ud800", "none": None},
    )


def test_everything_a_spider_gave_comes_back(form: RequestJson) -> None:
    given = full_request()
    text = form.dump(given)
    assert text.isascii()
    back = form.load(text)
    for name in Request.attributes:
        assert getattr(back, name) == getattr(given, name), name
    assert back.callback == SPIDER.parse_thing
    assert back.errback == SPIDER.failed


def test_without_a_callback_it_stays_without_one(form: RequestJson) -> None:
    back = form.load(form.dump(Request(URL)))
    assert (back.callback, back.errback, back.body, back.method) == (None, None, b"", "GET")


@pytest.mark.parametrize(
    "request_of_a_kind",
    [
        FormRequest(URL, SPIDER.parse_thing, formdata={"a": "1", "b": ["2", "3"]}),
        JsonRequest(URL, callback=SPIDER.parse_thing, data={"a": [1, None]}),
    ],
    ids=["form", "json"],
)
def test_a_form_becomes_the_request_it_makes(form: RequestJson, request_of_a_kind: Request) -> None:
    back = form.load(form.dump(request_of_a_kind))
    assert type(back) is Request
    assert (back.method, back.body, back.headers) == (
        "POST",
        request_of_a_kind.body,
        request_of_a_kind.headers,
    )


def test_notes_of_one_download_are_not_kept(form: RequestJson) -> None:
    meta = dict.fromkeys(_NOTES, 1) | {"retry_times": 2, "mine": 1, "download_timeout": 30.0}
    headers = {
        "User-Agent": "crawler/1 (+https://example.org/)",
        "Accept-Language": "en",
        "Accept-Encoding": "gzip",
        "If-None-Match": '"a"',
        "If-Modified-Since": "yesterday",
        "Proxy-Authorization": "Basic x",
        "Referer": "https://shop.example/",
    }
    request = Request(URL, headers=headers, meta=meta | {"proxy": "http://proxy"}, priority=3)
    back = form.load(form.dump(request))
    assert back.meta == {"mine": 1}
    assert back.headers.to_unicode_dict() == {"Referer": "https://shop.example/"}
    # Scrapy lowers the priority with each repeat.
    assert back.priority == 5


def test_what_the_spider_set_itself_is_kept(form: RequestJson) -> None:
    headers = {"User-Agent": "another", "Accept-Language": "de", "Proxy-Authorization": "Basic x"}
    meta = {"download_timeout": 5.0, "proxy": "http://proxy"}
    back = form.load(form.dump(Request(URL, headers=headers, meta=meta)))
    assert back.meta == meta
    assert back.headers.to_unicode_dict() == headers


def test_scrapys_own_list_of_such_notes_is_covered() -> None:
    assert MetaCopyDetectionMiddleware._INTERNAL_KEYS <= _NOTES
    assert KEY_META in _NOTES


@dataclass
class Thing:
    name: str


def itself() -> dict[str, Any]:
    given: dict[str, Any] = {}
    given["itself"] = given
    return given


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


UNFAITHFUL: dict[str, object] = {
    "tuple": (1, 2),
    "number as a name": {1: "a"},
    "deep tuple": {"deep": [{"er": ("a",)}]},
    "set": {3},
    "bytes": b"bytes",
    "item": Thing("a"),
    "time": datetime(2026, 1, 1),  # noqa: DTZ001 -- what a careless spider keeps
    "nan": float("nan"),
    "infinity": float("inf"),
    "function": len,
    "itself": itself(),
    "too deep": nested(100_000),
    "too long": "x" * MAX_BYTES,
}


@pytest.mark.parametrize("name", UNFAITHFUL)
@pytest.mark.parametrize("place", ["meta", "cb_kwargs"])
def test_what_would_come_back_as_something_else_is_refused(form: RequestJson, place: str, name: str) -> None:
    request = Request(URL, SPIDER.parse_thing)
    getattr(request, place)["value"] = UNFAITHFUL[name]
    with pytest.raises(RequestRefused, match=r"<GET https://shop\.example/"):
        form.dump(request)


@pytest.mark.parametrize("callback", [parse_anything, lambda _response: None, ShopSpider().parse_thing])
def test_a_callback_must_be_a_method_of_the_spider(form: RequestJson, callback: Any) -> None:
    """Of any spider of the class: methods are told apart by what they do, not by whose they are."""
    request = Request(URL, callback)
    if hasattr(callback, "__func__"):
        assert form.load(form.dump(request)).callback == SPIDER.parse_thing
        return
    with pytest.raises(RequestRefused, match="not an instance method"):
        form.dump(request)


@pytest.mark.parametrize("name", ["parse_no_more", "price", "__class__.nothing"])
def test_a_callback_that_is_gone_is_said(form: RequestJson, name: str) -> None:
    fields = json.loads(form.dump(Request(URL, SPIDER.parse_thing))) | {"callback": name}
    with pytest.raises(RequestLost, match=f"'shop' has no method '{name}'"):
        form.load(json.dumps(fields))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", '{"url": 1, "body": ""}', '{"url": "x", "body": "!", "callback": null}'],
)
def test_a_text_that_the_card_has_changed_is_said(form: RequestJson, text: str) -> None:
    with pytest.raises(RequestLost, match="its text cannot be read"):
        form.load(text)
