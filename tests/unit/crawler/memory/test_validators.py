"""What is remembered of a page, what is asked by it, and what an answer means: case by case."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from crawler.items import represented
from crawler.memory.validators import (
    PLATFORM_META,
    Header,
    Version,
    change_between,
    conditions,
    context_of,
    version_of,
)

TAG, WEAK = '"abc"', 'W/"abc"'
MONDAY = "Mon, 06 Jan 2025 08:00:00 GMT"
ONE_SECOND_LATER = "Mon, 06 Jan 2025 08:00:01 GMT"
TUESDAY = "Tue, 07 Jan 2025 08:00:00 GMT"
KNOWN = Version("content", "context", etag=TAG, last_modified=MONDAY)


def header(values: Mapping[str, str]) -> Header:
    return {name.lower(): value for name, value in values.items()}.get


def remembered(
    answered: Mapping[str, str],
    *,
    asked: Mapping[str, str] | None = None,
    sent: Mapping[str, str] | None = None,
    body: bytes = b"a page",
) -> Version | None:
    """Return what is remembered of an answer; what is sent is what is asked unless told."""
    before = asked or {}
    return version_of(
        body,
        "context",
        answered=header(answered),
        asked=header(before),
        sent=header(before if sent is None else sent),
    )


class TestWhatIsRemembered:
    @pytest.mark.parametrize(
        ("answered", "etag", "date"),
        [
            ({}, None, None),
            ({"ETag": TAG}, TAG, None),
            ({"ETag": WEAK}, WEAK, None),
            ({"ETag": '""'}, '""', None),
            ({"ETag": "unquoted"}, "unquoted", None),
            ({"ETag": ""}, None, None),
            ({"ETag": '"' + "x" * 300 + '"'}, None, None),
            ({"Last-Modified": MONDAY, "Date": TUESDAY}, None, MONDAY),
            ({"Last-Modified": MONDAY, "Date": ONE_SECOND_LATER}, None, MONDAY),
            # It may change again within the second that its date names.
            ({"Last-Modified": MONDAY, "Date": MONDAY}, None, None),
            ({"Last-Modified": TUESDAY, "Date": MONDAY}, None, None),
            ({"Last-Modified": MONDAY}, None, None),
            ({"Last-Modified": "yesterday", "Date": TUESDAY}, None, None),
            ({"Last-Modified": "0", "Date": TUESDAY}, None, None),
            ({"ETag": TAG, "Last-Modified": MONDAY, "Date": TUESDAY}, TAG, MONDAY),
        ],
    )
    def test_validators(self, answered: Mapping[str, str], etag: str | None, date: str | None) -> None:
        version = remembered(answered)
        assert version is not None
        assert (version.etag, version.last_modified) == (etag, date)
        assert version.is_trusted

    @pytest.mark.parametrize(
        "answered",
        [
            {"Vary": "*"},
            {"Vary": "Accept, *"},
            {"Cache-Control": "no-store"},
            {"Cache-Control": "Private, No-Store, max-age=0"},
        ],
    )
    def test_what_must_not_be_is_not(self, answered: Mapping[str, str]) -> None:
        assert remembered({"ETag": TAG, **answered}) is None

    @pytest.mark.parametrize("control", ["no-cache", "max-age=0", "private", "x-no-store"])
    def test_other_words_of_cache_control_do_not_forbid_it(self, control: str) -> None:
        assert remembered({"ETag": TAG, "Cache-Control": control}) is not None

    def test_the_body_is_known_by_its_content(self) -> None:
        first, same, other = (remembered({}, body=body) for body in (b"a", b"a", b"b"))
        assert first == same != other

    def test_it_survives_json(self) -> None:
        version = remembered({"ETag": TAG, "Last-Modified": MONDAY, "Date": TUESDAY, "Vary": "Accept"})
        assert version is not None
        assert Version.from_facts(json.loads(json.dumps(version.as_facts()))) == version
        untrusted = replace(version, is_trusted=False)
        assert Version.from_facts(json.loads(json.dumps(untrusted.as_facts()))) == untrusted

    def test_facts_of_another_kind_are_no_version(self) -> None:
        assert Version.from_facts([]) is None


class TestVary:
    @pytest.mark.parametrize(
        ("vary", "then", "now", "is_asked"),
        [
            ("", {"Accept": "text/html"}, {"Accept": "text/plain"}, True),
            ("Accept", {"Accept": "text/html"}, {"Accept": "text/html"}, True),
            ("Accept", {"Accept": "text/html"}, {"Accept": "text/plain"}, False),
            ("Accept", {"Accept": "text/html"}, {}, False),
            ("Accept", {}, {}, True),
            ("Cookie, accept", {"Accept": "a", "Cookie": "b"}, {"Accept": "a", "Cookie": "c"}, False),
            ("ACCEPT,cookie", {"Accept": "a", "Cookie": "b"}, {"Cookie": "b", "Accept": "a"}, True),
            # Decoded, the codings of a page are one page.
            ("Accept-Encoding", {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "br"}, True),
        ],
    )
    def test_is_asked_only_for_the_same_variant(
        self, vary: str, then: Mapping[str, str], now: Mapping[str, str], is_asked: bool
    ) -> None:
        version = remembered({"ETag": TAG, "Vary": vary}, asked=then)
        assert version is not None
        assert bool(conditions(version, header(now))) is is_asked

    def test_the_order_and_spelling_of_the_names_make_no_difference(self) -> None:
        names = ["Accept", "Accept-Language", "Cookie", "Origin", "User-Agent", "X-Shop", "X-Time"]
        one, other = (remembered({"Vary": ", ".join(each)}) for each in (names, reversed(names)))
        assert one == other == remembered({"Vary": ",".join(names).upper()})
        assert one is not None
        assert one.vary == "accept,accept-language,cookie,origin,user-agent,x-shop,x-time"

    def test_a_header_that_is_only_added_on_the_way_cannot_be_compared_so_the_page_is_not_remembered(
        self,
    ) -> None:
        answered = {"ETag": TAG, "Vary": "Cookie, Accept-Encoding"}
        assert remembered(answered, asked={}, sent={"Cookie": "session=1"}) is None
        assert remembered(answered, asked={}, sent={"Accept-Encoding": "gzip"}) is not None


class TestWhatIsAsked:
    @pytest.mark.parametrize(
        ("known", "fields"),
        [
            (KNOWN, {"If-None-Match": TAG, "If-Modified-Since": MONDAY}),
            (replace(KNOWN, etag=WEAK, last_modified=None), {"If-None-Match": WEAK}),
            (replace(KNOWN, etag=None), {"If-Modified-Since": MONDAY}),
            (replace(KNOWN, etag=None, last_modified=None), {}),
            (replace(KNOWN, is_trusted=False), {}),
        ],
    )
    def test_by_what_is_known(self, known: Version, fields: Mapping[str, str]) -> None:
        assert conditions(known, header({})) == fields


class TestWhatAnAnswerMeans:
    @pytest.mark.parametrize(
        ("change", "fresh"),
        [
            ("none", {}),
            ("none", {"etag": '"new"'}),
            ("none", {"context": "another"}),
            ("content", {"content": "new", "etag": '"new"', "last_modified": TUESDAY}),
            # The tag is what counts: a date may be the same for a second.
            ("content", {"content": "new", "etag": '"new"'}),
            ("content", {"content": "new", "etag": None, "last_modified": None}),
            ("content under the old tag", {"content": "new"}),
            ("content under the old tag", {"content": "new", "last_modified": TUESDAY}),
        ],
    )
    def test_of_a_page_with_a_tag(self, change: str, fresh: Mapping[str, Any]) -> None:
        assert change_between(KNOWN, replace(KNOWN, **fresh)) == change

    @pytest.mark.parametrize(
        ("change", "known_date", "fresh_date"),
        [
            ("content under the old tag", MONDAY, MONDAY),
            ("content", MONDAY, TUESDAY),
            ("content", MONDAY, None),
            ("content", None, None),
        ],
    )
    def test_of_a_page_without(self, change: str, known_date: str | None, fresh_date: str | None) -> None:
        known = Version("old", "context", last_modified=known_date)
        assert change_between(known, Version("new", "context", last_modified=fresh_date)) == change


@dataclass
class Listed:
    price: Decimal
    seen_at: datetime


class TestContext:
    def context(
        self,
        *,
        callback: str = "Shop.parse",
        arguments: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        program: str = "program",
    ) -> str | None:
        return context_of(callback, arguments or {}, meta or {}, program, represented)

    @pytest.mark.parametrize(
        "other",
        [
            {"callback": "Shop.parse_other"},
            {"arguments": {"page": 2}},
            {"arguments": {"page": "1"}},
            {"arguments": {"page": 1, "more": None}},
            {"meta": {"category": "fiction"}},
            {"program": "mended"},
        ],
    )
    def test_whatever_the_items_may_depend_on_makes_another(self, other: Mapping[str, Any]) -> None:
        one: dict[str, Any] = {"arguments": {"page": 1}}
        assert self.context(**one) == self.context(**one) != self.context(**{**one, **other})

    def test_how_a_page_is_fetched_does_not(self) -> None:
        meta = dict.fromkeys(PLATFORM_META, "whatever") | {"category": "fiction"}
        assert self.context(meta=meta) == self.context(meta={"category": "fiction"})

    def test_the_order_of_names_does_not(self) -> None:
        assert self.context(arguments={"a": 1, "b": 2}) == self.context(arguments={"b": 2, "a": 1})

    def test_a_half_filled_item_is_part_of_it(self) -> None:
        listed = Listed(Decimal("1.50"), datetime(2025, 1, 6, tzinfo=UTC))
        same, other = replace(listed), replace(listed, price=Decimal("1.51"))
        assert self.context(arguments={"item": listed}) is not None
        assert self.context(arguments={"item": listed}) == self.context(arguments={"item": same})
        assert self.context(arguments={"item": listed}) != self.context(arguments={"item": other})
        assert self.context(meta={"item": {1, 2}}) == self.context(meta={"item": {2, 1}})

    @pytest.mark.parametrize("value", [object(), lambda: None, 2**70, "\ud800"])
    def test_what_has_no_form_to_compare_makes_none(self, value: Any) -> None:
        assert self.context(arguments={"value": value}) is None
        assert self.context(meta={"value": value}) is None
        assert self.context(meta={"depth": value}) is not None
