"""What a run counts of its pages and items, and which odd page it keeps of each kind."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict
from weakref import ref

import attrs
import pytest
import scrapy
from scrapy.http import HtmlResponse, Response

from crawler.drift.comparison import Profile
from crawler.drift.samples import Sample, SampleBook, Why
from crawler.drift.survey import Survey
from crawler.exceptions import ItemInvalid
from crawler.pages import REFUSED, Page, SettledPage
from crawler.tickets import Ticket

SITE = "https://shop.example/"


@dataclass
class Book:
    url: str
    price: int | None = None
    tags: list[str] | None = None


@attrs.define
class Leaflet:
    url: str
    price: int | None = None


class Shelf(scrapy.Item):
    url = scrapy.Field()
    price = scrapy.Field()


def page_at(path: str, body: bytes = b"<p>page</p>", status: int = 200) -> HtmlResponse:
    return HtmlResponse(SITE + path, status=status, body=body, encoding="utf-8")


def entered(response: Response) -> Page:
    return Page(response.url, Ticket(lambda _seen: None), ref(response))


def profile_of(survey: Survey) -> Profile:
    return survey.profile(SITE, failed={}, spared_pages=0, dead=0, received_bytes=0)


def kept(survey: Survey) -> dict[Why, str]:
    samples: dict[Why, Sample] = survey.samples._samples
    return {why: sample.url.removeprefix(SITE) for why, sample in samples.items()}


# -- pages -----------------------------------------------------------------------------------------


def test_each_page_is_counted_once_by_what_it_gave() -> None:
    survey = Survey()
    for path, items, links in (("list", 0, 20), ("both", 3, 2), ("book", 1, 0), ("none", 0, 0)):
        outcome = SettledPage(items=items, links=links)
        survey.page_ended(page_at(path, b"x" * 10), outcome, is_whole=True)
    survey.page_raised(page_at("bad", b"x" * 5))
    survey.page_ended(page_at("bad"), SettledPage(items=7), is_whole=False)
    assert profile_of(survey) == Profile(
        SITE, link_pages=1, item_pages=2, empty_pages=1, raised_pages=1, items=11, page_bytes=35
    )
    assert kept(survey) == {Why.ONLY_LINKS: "list", Why.EMPTY: "none", Why.RAISED: "bad"}


@pytest.mark.parametrize("items", [0, 3])
def test_a_page_that_never_came_to_its_callback_is_none_whatever_an_errback_made_of_it(items: int) -> None:
    survey = Survey()
    gone = page_at("gone", status=404)
    gone.flags.append(REFUSED)
    survey.page_ended(gone, SettledPage(items=items), is_whole=True)
    survey.page_raised(gone)
    survey.page_failed(page_at("forbidden", status=403))
    assert profile_of(survey) == Profile(SITE, items=items)
    assert kept(survey) == {Why.FAILED: "gone"}


def test_an_error_page_that_the_spider_asked_for_is_a_page() -> None:
    survey = Survey()
    survey.page_ended(page_at("gone", status=404), SettledPage(), is_whole=True)
    assert profile_of(survey).empty_pages == 1


def test_the_first_of_its_kind_is_kept() -> None:
    survey = Survey()
    for path in ("first", "second"):
        survey.page_ended(page_at(path), SettledPage(), is_whole=True)
    assert kept(survey) == {Why.EMPTY: "first"}


# -- fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [Book, Leaflet, Shelf, partial(dict)], ids=["dataclass", "attrs", "Item", "dict"]
)
def test_the_fields_of_every_kind_of_item_are_counted(make: Any) -> None:
    survey = Survey()
    items = [make(url="a", price=0), make(url="b", price=None), make(url="", price=5)]
    for item in items:
        survey.item(item, None)
    ((count, filled),) = profile_of(survey).filled.values()
    assert count == 3
    assert {name: filled[name] for name in ("url", "price")} == {"url": 2, "price": 2}


def test_a_field_that_only_later_items_have_was_missing_before() -> None:
    survey = Survey()
    for item in ({"url": "a"}, {"url": "b"}, {"url": "c", "price": 5}, {"price": 5}):
        survey.item(item, None)
    assert profile_of(survey).filled == {"dict": (4, {"url": 3, "price": 2})}


def test_a_usual_field_that_no_item_has_is_counted_as_missing() -> None:
    survey = Survey()
    survey.expect({"dict.price": 1.0, "Book.price": 1.0})
    survey.item({"url": "a"}, None)
    assert profile_of(survey).filled == {"dict": (1, {"price": 0, "url": 1})}


def test_names_that_pages_make_up_are_bounded() -> None:
    survey = Survey()
    for number in range(300):
        survey.item({"url": "a", f"heading {number}": 1, "x" * 200: 1, "nul\x00": 1, 5: 1}, None)
    _items, filled = profile_of(survey).filled["dict"]
    assert len(filled) == 100
    assert not any("\x00" in name or len(name) > 100 for name in filled)
    types = [type(f"Type{number}", (dict,), {}) for number in range(50)]
    for kind in types:
        survey.item(kind(url="a"), None)
    assert len(profile_of(survey).filled) == 20


def test_what_is_no_item_is_left_to_who_refuses_it() -> None:
    survey = Survey()
    for item in (42, "text", None, [1]):
        survey.item(item, None)
    assert all(filled == {} for _items, filled in profile_of(survey).filled.values())


def test_an_item_that_breaks_its_types_is_refused_counted_and_its_page_kept() -> None:
    survey = Survey()
    response = page_at("book")
    with pytest.raises(ItemInvalid, match="'price' is a str"):
        survey.item(Book("", "5"), entered(response))  # type: ignore[arg-type]
    survey.item(Book("a", 5), entered(response))
    assert survey.invalid == 1
    assert profile_of(survey).filled == {"Book": (2, {"url": 1, "price": 2, "tags": 0})}
    assert kept(survey) == {Why.INVALID: "book"}


def test_too_many_types_are_still_held_to_their_types() -> None:
    survey = Survey()
    for number in range(20):
        survey.item(type(f"Type{number}", (dict,), {})(url="a"), None)
    with pytest.raises(ItemInvalid):
        survey.item(Book(5), None)  # type: ignore[arg-type]


# -- the page that lacks what is usual -------------------------------------------------------------


@pytest.fixture
def expecting() -> Survey:
    survey = Survey()
    survey.expect({"Book.url": 1.0, "Book.price": 1.0, "Book.tags": 0.5})
    return survey


def met(survey: Survey, path: str, **fields: Any) -> None:
    response = page_at(path)
    survey.item(Book(path, **fields), entered(response))


def test_a_page_is_kept_whose_item_lacks_what_is_usual(expecting: Survey) -> None:
    met(expecting, "good", price=1, tags=["a"])
    assert kept(expecting) == {}
    met(expecting, "first", tags=["a"])
    met(expecting, "second", tags=["a"])
    assert kept(expecting) == {Why.LACKING: "first"}


def test_what_is_often_missing_does_not_keep_the_page_that_lacks_what_is_never(expecting: Survey) -> None:
    """Half of the books have no tags. Three in a row are the most unusual, until the prices go."""
    for number in range(3):
        met(expecting, f"untagged {number}", price=1)
    assert kept(expecting) == {Why.LACKING: "untagged 0"}
    for number in range(3):
        met(expecting, f"unpriced {number}", tags=["a"])
    assert kept(expecting) == {Why.LACKING: "unpriced 1"}


def test_nothing_is_unusual_in_a_first_run() -> None:
    survey = Survey()
    met(survey, "book")
    assert kept(survey) == {}


def test_a_page_that_nobody_holds_any_more_is_not_kept(expecting: Survey) -> None:
    page = entered(page_at("gone"))
    assert page.response is None
    expecting.item(Book("a"), page)
    assert kept(expecting) == {}


# -- annotations -----------------------------------------------------------------------------------


class Loose(TypedDict):
    name: str


@dataclass
class Outer:
    inner: Loose
    url: str = ""


def test_a_type_that_cannot_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    survey = Survey()
    with caplog.at_level(logging.WARNING):
        survey.announce([Outer, Book])
        for _ in range(3):
            survey.item(Outer({"name": "x"}), None)
    assert [record.getMessage() for record in caplog.records] == [
        f"Items are not held to a type that cannot be read: Outer.inner: {Loose!r}"
    ]


def test_a_class_that_is_met_only_later_is_said_then(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Survey().item(Outer({"name": "x"}), None)
    assert len(caplog.records) == 1


def test_a_survey_holds_no_page(expecting: Survey) -> None:
    response = page_at("book")
    expecting.page_ended(response, SettledPage(), is_whole=True)
    expecting.item(Book("a"), entered(response))
    watched = ref(response)
    assert isinstance(expecting.samples, SampleBook)
    del response
    assert watched() is None
