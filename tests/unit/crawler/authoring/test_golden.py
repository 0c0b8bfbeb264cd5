"""What a saved page gives: every form of callback, items as rows hold them, and what goes wrong."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import HtmlResponse, Response
from scrapy.settings import Settings

from crawler.authoring.golden import Number, callbacks_of, expect, expected_of, parse, spider_of
from crawler.authoring.saved_pages import Case, case_of, cases_of, read_case, save_case
from crawler.exceptions import CaseError
from crawler.source import SourceSpider

PAGE = "https://shop.example/kettle"


@dataclass
class Thing:
    code: str
    price: Decimal | None = None
    seen: datetime | None = None
    text: str | None = None


class ShopSpider(SourceSpider):
    name = "shop"
    base_url = "https://shop.example/"
    key = "code"

    def parse_yielding(self, response: Response) -> Iterator[Thing]:
        yield Thing("a")

    def parse_returning_a_list(self, response: Response) -> list[Thing]:
        return [Thing("a")]

    def parse_returning_one(self, response: Response) -> Thing:
        return Thing("a")

    def parse_returning_nothing(self, response: Response) -> None:
        return None

    async def parse_awaiting(self, response: Response) -> list[Thing]:
        return [Thing("a")]

    async def parse_yielding_late(self, response: Response) -> AsyncIterator[Thing]:
        yield Thing("a")

    def parse_values(self, response: Response, number: int = 0) -> Iterator[Thing]:
        moment = datetime(2026, 1, 2, 3, tzinfo=UTC)
        yield Thing("ä", Decimal("10.50"), moment, f"nul \x00 {number}")

    def parse_links(self, response: Response) -> Iterator[Request]:
        yield Request(self.site_url("a?b=1"), self.parse_values, cb_kwargs={"number": 2})
        yield Request(self.site_url("c"), self.parse_helper, method="POST", body="q=1")
        yield Request(self.site_url("d"))

    def parse_and_fail(self, response: Response) -> Iterator[Thing]:
        yield Thing("a")
        raise ValueError("no \x00 price")

    def parse_refused(self, response: Response) -> Iterator[Any]:
        yield Thing("")
        yield Thing("a", price="1.50")  # type: ignore[arg-type]
        yield {"price": 1}
        yield Thing("b")

    def parse_text(self, response: Response) -> Iterator[Thing]:
        yield Thing(
            f"{type(response).__name__} {response.status} {response.url}",
            text=response.css("p::text").get(),
        )

    def parse_helper(self, entry: object) -> None:
        """No callback: it takes no response."""


@pytest.fixture
def shop() -> ShopSpider:
    spider = spider_of(ShopSpider, Settings())
    assert isinstance(spider, ShopSpider)
    return spider


def saved(folder: Path, callback: str, body: bytes = b"<p>x</p>", **more: Any) -> Case:
    case = Case(folder / "shop" / "case", PAGE, callback, "page.html", "by hand", **more)
    save_case(case, body)
    return case


def found(spider: ShopSpider, folder: Path, callback: str, **more: Any) -> dict[str, Any]:
    return parse(spider, saved(folder, callback, **more))


@pytest.mark.parametrize(
    "form", ["yielding", "returning_a_list", "returning_one", "awaiting", "yielding_late"]
)
def test_every_form_of_callback_is_followed(form: str, shop: ShopSpider, tmp_path: Path) -> None:
    document = found(shop, tmp_path, f"parse_{form}")
    assert [item["key"] for item in document["items"]] == ["a"]
    assert document.keys() == {"items", "links"}


def test_a_callback_may_give_nothing(shop: ShopSpider, tmp_path: Path) -> None:
    assert found(shop, tmp_path, "parse_returning_nothing") == {"items": [], "links": []}


def test_an_item_is_as_its_row_holds_it(shop: ShopSpider, tmp_path: Path) -> None:
    [item] = found(shop, tmp_path, "parse_values", cb_kwargs={"number": 7})["items"]
    assert item == {
        "key": "ä",
        "url": PAGE,
        "data": {
            "code": "ä",
            "price": Number("10.50"),
            "seen": "2026-01-02T03:00:00+00:00",
            "text": "nul \ufffd 7",
        },
    }


def test_a_link_names_its_callback_and_what_it_is_given(shop: ShopSpider, tmp_path: Path) -> None:
    assert found(shop, tmp_path, "parse_links")["links"] == [
        {
            "url": "https://shop.example/a?b=1",
            "callback": "parse_values",
            "cb_kwargs": {"number": Number("2")},
        },
        {"url": "https://shop.example/c", "callback": "parse_helper", "method": "POST", "body": "q=1"},
        {"url": "https://shop.example/d", "callback": None},
    ]


def test_what_a_callback_raises_is_what_the_page_gives(shop: ShopSpider, tmp_path: Path) -> None:
    document = found(shop, tmp_path, "parse_and_fail")
    assert [item["key"] for item in document["items"]] == ["a"]
    assert document["raised"] == "ValueError: no \ufffd price"


def test_an_item_without_a_row_form_is_told_and_the_next_is_kept(shop: ShopSpider, tmp_path: Path) -> None:
    document = found(shop, tmp_path, "parse_refused")
    assert [item["key"] for item in document["items"]] == ["b"]
    empty, wrong_type, without_key = document["refused"]
    assert "code" in empty
    assert "price" in wrong_type
    assert "the key field 'code' is missing" in without_key


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        ("<p>é</p>".encode("latin-1"), {"Content-Type": "text/html; charset=latin-1"}, "HtmlResponse"),
        ('<meta charset="utf-8"><p>é</p>'.encode(), {"content-type": "text/html"}, "HtmlResponse"),
        ("<a><p>é</p></a>".encode(), {"Content-Type": "application/xml"}, "XmlResponse"),
        ("<!doctype html><p>é</p>".encode(), {}, "HtmlResponse"),
    ],
)
def test_the_page_is_decoded_as_in_a_crawl(
    body: bytes, headers: dict[str, str], kind: str, shop: ShopSpider, tmp_path: Path
) -> None:
    [item] = found(shop, tmp_path, "parse_text", body=body, headers=headers, status=404)["items"]
    assert (item["key"], item["data"]["text"]) == (f"{kind} 404 {PAGE}", "é")


def test_an_unknown_callback_is_named_with_those_there_are(shop: ShopSpider, tmp_path: Path) -> None:
    with pytest.raises(
        CaseError, match=r"shop/case: ShopSpider has no callback 'parse_x'; allowed: parse_and"
    ):
        found(shop, tmp_path, "parse_x")


def test_callbacks_are_the_methods_that_take_a_response() -> None:
    names = callbacks_of(ShopSpider)
    assert "parse_values" in names
    assert not {"parse_helper", "parse"} & set(names)


def test_a_page_that_is_gone_is_an_error_not_a_result(shop: ShopSpider, tmp_path: Path) -> None:
    case = saved(tmp_path, "parse_yielding")
    case.page_path.unlink()
    with pytest.raises(CaseError, match="shop/case: its page cannot be read"):
        parse(shop, case)


def test_a_spider_that_does_not_start_says_why() -> None:
    with pytest.raises(CaseError, match="the spider 'shop' does not start: base_url='ftp://x'"):
        spider_of(ShopSpider, Settings(), base_url="ftp://x")


class TestWhatIsExpected:
    def test_is_what_was_found_digit_for_digit(self, shop: ShopSpider, tmp_path: Path) -> None:
        case = saved(tmp_path, "parse_values")
        assert expected_of(case) is None
        document = parse(shop, case)
        expect(case, document)
        assert expected_of(case) == document
        assert b'"price": 10.50,' in case.expected_path.read_bytes()
        assert "ä" in case.expected_path.read_text(encoding="utf-8")

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"items": []}', '{"items": 1, "links": []}'])
    def test_is_refused_when_damaged(self, text: str, tmp_path: Path) -> None:
        case = saved(tmp_path, "parse_values")
        case.expected_path.write_text(text)
        with pytest.raises(CaseError, match="write it anew: scrapy golden shop --update"):
            expected_of(case)


class TestCase:
    def test_comes_back_as_it_was_saved(self, tmp_path: Path) -> None:
        case = saved(tmp_path, "parse_values", cb_kwargs={"number": 7}, headers={"Link": "<é>"}, status=201)
        assert read_case(case.folder) == case
        assert cases_of(tmp_path / "shop") == [case]

    def test_replaces_the_page_of_its_name_but_not_what_is_expected_of_it(self, tmp_path: Path) -> None:
        old = saved(tmp_path, "parse_values", body=b"old")
        (old.folder / "page.bin").touch()
        old.expected_path.write_text("{}")
        saved(tmp_path, "parse_links", body=b"new")
        files = {file.name: file.read_text() for file in old.folder.iterdir()}
        assert files.keys() == {"case.json", "page.html", "expected.json"}
        assert (files["page.html"], files["expected.json"]) == ("new", "{}")
        assert read_case(old.folder).callback == "parse_links"

    def test_keeps_the_headers_a_callback_reads_and_no_cookie(self, tmp_path: Path) -> None:
        headers = {
            "content-type": "text/html",
            "Set-Cookie": "who=me",
            "Link": "<b>; rel=next",
            "Date": "now",
        }
        response = HtmlResponse(PAGE, headers=headers, status=203, body=b"x")
        case = case_of(response, tmp_path, callback="parse_values", origin="fetched")
        assert case.headers == {"Content-Type": "text/html", "Link": "<b>; rel=next"}
        assert (case.page, case.status, case.url) == ("page.html", 203, PAGE)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{", "describes no saved page"),
            ("[]", "describes no saved page"),
            ('{"url": "u"}', "describes no saved page"),
            (
                '{"url": "u", "callback": "c", "page": "p", "origin": "o", "colour": 1}',
                "describes no saved page",
            ),
            (
                '{"url": "u", "callback": "c", "page": "p", "origin": "o", "status": "200"}',
                "status='200'; allowed: int",
            ),
        ],
    )
    def test_is_refused_when_it_is_none(self, text: str, problem: str, tmp_path: Path) -> None:
        (tmp_path / "case.json").write_text(text)
        with pytest.raises(CaseError, match=problem):
            read_case(tmp_path)
