"""Each rule finds its own breach in a spider that is otherwise as it should be, and nothing in a good one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.settings import Settings

from crawler.authoring.golden import expect
from crawler.authoring.rules import class_name, files_without_spider, findings, is_address
from crawler.authoring.saved_pages import EXAMPLE, Case, save_case
from crawler.source import SourceSpider

DOCSTRING = """Everything the shop sells.

Site: https://shop.example/, ten pages.
Refresh: daily.
Robots: all is open.
Caveats: prices are in crowns,
and may be missing.
"""
SETTINGS = Settings({"POLITENESS_FLOOR_SECONDS": 0.5, "ROBOTSTXT_OBEY": True})
ITEM = {"key": "a", "url": "u", "data": {}}


@dataclass
class Thing:
    code: str
    url: str


class Shop(SourceSpider):
    """The parts of a good spider; ``spider`` makes it one, or spoils it."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(self.site_url("list"), self.parse_list)

    def parse_list(self, response: Response) -> Iterator[Request | Thing]:
        raise NotImplementedError


def spider(called: str = "ShopSpider", bases: tuple[type, ...] = (Shop,), **attributes: Any) -> type[Spider]:
    good = {
        "name": "shop",
        "base_url": "https://shop.example/",
        "key": ("code", "url"),
        "schedule": "17 4 * * *",
        "custom_settings": {"DOWNLOAD_DELAY": 0.5},
        "__doc__": DOCSTRING,
        "__module__": "spiders.shop",
    }
    present = {key: value for key, value in (good | attributes).items() if value is not ...}
    return type(called, bases, present)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of saved pages with one of the shop, of which an item is expected."""
    add_case(tmp_path)
    return tmp_path


def add_case(folder: Path, *, origin: str = "fetched", expected: dict[str, Any] | None = None) -> None:
    case = Case(folder / "shop" / "list", "https://shop.example/list", "parse_list", "page.html", origin)
    save_case(case, b"x")
    expect(case, {"items": [ITEM], "links": []} if expected is None else expected)


def breaches(spidercls: type[Spider], pages: Path) -> list[tuple[str, str]]:
    return [(found.id, found.message) for found in findings([spidercls], SETTINGS, pages)]


def test_a_good_spider_breaks_none(pages: Path) -> None:
    assert breaches(spider(), pages) == []


@pytest.mark.parametrize(
    ("attributes", "code", "message"),
    [
        ({"name": "Shop"}, "CR-E101", "the spider name 'Shop'"),
        ({"name": "1shop"}, "CR-E101", "the spider name '1shop'"),
        ({"__module__": "spiders.store"}, "CR-E101", "the spider 'shop' is in store.py"),
        ({"base_url": "shop.example"}, "CR-E102", "base_url='shop.example' of 'shop'"),
        ({"base_url": "https://shop.example"}, "CR-E102", "base_url='https://shop.example' of 'shop'"),
        ({"base_url": ""}, "CR-E102", "base_url='' of 'shop'"),
        ({"key": ...}, "CR-E103", "'shop' declares no key"),
        ({"key": "sku"}, "CR-E103", "key='sku' of 'shop': Thing has no field 'sku'"),
        ({"key": ("code", "sku")}, "CR-E103", "key=('code', 'sku') of 'shop': Thing has no field 'sku'"),
        (
            {"custom_settings": {"DOWNLOAD_DELAY": 0.49}},
            "CR-E104",
            "DOWNLOAD_DELAY=0.49 in custom_settings of 'shop'",
        ),
        (
            {"custom_settings": {"DOWNLOAD_DELAY": 1, "ROBOTSTXT_OBEY": False}},
            "CR-E104",
            "ROBOTSTXT_OBEY is off for 'shop'",
        ),
        ({"schedule": "@daily"}, "CR-E105", "schedule='@daily' of 'shop': 1 fields"),
        ({"schedule": "61 * * * *"}, "CR-E105", "schedule='61 * * * *' of 'shop': bad minute"),
        ({"schedule": 5}, "CR-E105", "schedule=5 of 'shop'"),
        ({"revisit": "sometimes"}, "CR-E109", "revisit='sometimes' of the spider 'shop'; allowed: never"),
        ({"drift": {"items": 50}}, "CR-E110", "drift['items']=50; allowed: a share from 0 to 1"),
        (
            {"__doc__": DOCSTRING.replace("Robots:", "robots")},
            "CR-E106",
            "the term 'Robots' in the docstring of ShopSpider is missing",
        ),
        (
            {"__doc__": DOCSTRING.replace("all is open.", "")},
            "CR-E106",
            "the term 'Robots' in the docstring of ShopSpider is missing",
        ),
        (
            {"__doc__": DOCSTRING.replace("daily.", "<how often>")},
            "CR-E106",
            "the term 'Refresh' in the docstring of ShopSpider is still the template's",
        ),
    ],
)
def test_each_breach_is_found(attributes: dict[str, Any], code: str, message: str, pages: Path) -> None:
    found = [each for each in breaches(spider(**attributes), pages) if each[0] == code]
    assert any(text.startswith(message) for _code, text in found), breaches(spider(**attributes), pages)


def test_the_class_has_the_name_of_the_source(pages: Path) -> None:
    assert breaches(spider(called="StoreSpider"), pages) == [
        ("CR-E101", "the class of the spider 'shop' is StoreSpider")
    ]


def test_a_spider_of_another_kind_is_told_apart(pages: Path) -> None:
    class Foreign(Spider):
        parse_list = Shop.parse_list
        start = Shop.start
        site_url = SourceSpider.site_url

        def __init__(self, base_url: str) -> None:
            self.base_url = base_url

    assert breaches(spider(bases=(Foreign,)), pages) == [("CR-E101", "ShopSpider is no SourceSpider")]


def test_a_source_need_not_be_scheduled(pages: Path) -> None:
    assert breaches(spider(schedule=""), pages) == []


def test_a_missing_docstring_misses_every_term(pages: Path) -> None:
    assert [code for code, _message in breaches(spider(__doc__=None), pages)] == ["CR-E106"] * 4


def test_some_callback_must_say_what_it_yields(pages: Path) -> None:
    def parse_list(self: Any, response: Response) -> Iterator[Request]:
        raise NotImplementedError

    assert breaches(spider(parse_list=parse_list), pages) == [
        ("CR-E103", "no callback of 'shop' says which item it yields")
    ]


class TestStart:
    @staticmethod
    def breach(start: Any, pages: Path) -> tuple[str, str]:
        [found] = breaches(spider(start=start), pages)
        return found

    def test_yields_no_item(self, pages: Path) -> None:
        async def start(self: Any) -> AsyncIterator[Any]:
            yield Thing("a", "u")
            yield Thing("b", "u")

        assert self.breach(start, pages) == ("CR-E107", "start() of 'shop' yields a Thing")

    def test_goes_where_base_url_points(self, pages: Path) -> None:
        async def start(self: Any) -> AsyncIterator[Any]:
            yield Request("https://shop.example/list", self.parse_list)

        assert self.breach(start, pages) == (
            "CR-E107",
            "start() of 'shop' asks for https://shop.example/list whatever base_url is",
        )

    def test_calls_back_a_method_of_the_spider(self, pages: Path) -> None:
        def apart(response: Response) -> None: ...

        async def start(self: Any) -> AsyncIterator[Any]:
            yield Request(self.site_url("list"), apart)

        assert self.breach(start, pages) == (
            "CR-E107",
            "start() of 'shop' has 'apart' called back, which is no method of the spider",
        )

    def test_raises_nothing(self, pages: Path) -> None:
        async def start(self: Any) -> AsyncIterator[Any]:
            for _ in "x":
                raise ValueError("no luck")
            yield

        assert self.breach(start, pages) == ("CR-E107", "start() of 'shop' fails: ValueError: no luck")

    def test_ends(self, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("crawler.authoring.rules._START_SECONDS", 0.1)

        async def start(self: Any) -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        code, message = self.breach(start, pages)
        assert code == "CR-E107"
        assert message.startswith("start() of 'shop' fails: TimeoutError")

    def test_without_end_is_looked_at_for_a_while(self, pages: Path) -> None:
        async def start(self: Any) -> AsyncIterator[Any]:
            while True:
                yield Request(self.site_url("list"), self.parse_list)

        assert breaches(spider(start=start), pages) == []


class TestSavedPages:
    def test_there_must_be_one(self, tmp_path: Path) -> None:
        assert breaches(spider(), tmp_path) == [("CR-E108", "no saved page of 'shop' must give an item")]

    def test_one_must_give_an_item(self, tmp_path: Path) -> None:
        add_case(tmp_path, expected={"items": [], "links": []})
        assert breaches(spider(), tmp_path) == [("CR-E108", "no saved page of 'shop' must give an item")]

    def test_none_may_be_made_up(self, tmp_path: Path) -> None:
        add_case(tmp_path, origin=EXAMPLE)
        assert breaches(spider(), tmp_path) == [("CR-E108", "shop/list is a page that was made up")]

    def test_something_must_be_expected_of_each(self, pages: Path) -> None:
        (pages / "shop" / "list" / "expected.json").unlink()
        assert breaches(spider(), pages)[0] == ("CR-E108", "nothing is expected of shop/list")

    def test_a_damaged_one_is_a_finding(self, pages: Path) -> None:
        (pages / "shop" / "list" / "case.json").write_text("{")
        [(code, message)] = breaches(spider(), pages)
        assert code == "CR-E108"
        assert "describes no saved page" in message


def test_a_file_without_its_spider_is_found(tmp_path: Path) -> None:
    for name in ("__init__", "shop", "store"):
        (tmp_path / f"{name}.py").touch()
    [finding] = files_without_spider(tmp_path, ["shop"])
    assert finding.message.endswith("/store.py holds no spider of the name 'store'")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("books", "BooksSpider"), ("pypi_releases", "PypiReleasesSpider"), ("a1_b2", "A1B2Spider")],
)
def test_the_class_is_called_after_the_source(name: str, expected: str) -> None:
    assert class_name(name) == expected


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("https://shop.example", True),
        ("http://127.0.0.1:8001/a?b=c", True),
        ("shop.example", False),
        ("//shop.example/", False),
        ("ftp://shop.example/", False),
        ("https://", False),
        ("https:///path", False),
        ("https://shop.example:port/", False),
        ("https://shop.example:0/", False),
        ("https://shop .example/", False),
        ("https://[::1/", False),
        ("", False),
    ],
)
def test_an_address_is_an_absolute_url_of_the_web(text: str, verdict: bool) -> None:
    assert is_address(text) is verdict
