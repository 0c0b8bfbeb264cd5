"""Every row of the table at the head of ``crawler/items.py``, its refusals, and what makes content equal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, cast
from uuid import UUID

import attrs
import orjson
import pytest
import scrapy
from hypothesis import given
from hypothesis import strategies as st

from crawler.delivery.tables import SCRAPED_DATA
from crawler.exceptions import ItemRefused
from crawler.items import ItemEncoder
from crawler.records import line_fields

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SEOUL = timezone(timedelta(hours=9))


def encoder_of(
    key: str | tuple[str, ...] = "url",
    *,
    keep_every: bool = False,
    max_bytes: int = 100_000,
    clock: Callable[[], datetime] = lambda: NOON,
) -> ItemEncoder:
    return ItemEncoder(
        source="shop",
        key=key,
        keep_every=keep_every,
        run_id="run-1",
        host="pi",
        max_bytes=max_bytes,
        wall_clock=clock,
    )


def row_of(
    item: Any, encoder: ItemEncoder | None = None, page_url: str | None = None
) -> dict[str, str | None]:
    line = (encoder or encoder_of()).encode(item, page_url).line
    return dict(zip(SCRAPED_DATA.column_names.split(","), line_fields(line), strict=True))


def json_of(item: Any, encoder: ItemEncoder | None = None) -> str:
    return cast(str, row_of(item, encoder)["data"])


def value_json(value: Any) -> str:
    """The JSON text of a value inside an item."""
    text = json_of({"url": "u", "v": value})
    assert text.startswith('{"url":"u","v":')
    return text.removeprefix('{"url":"u","v":').removesuffix("}")


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Tone(StrEnum):
    LOW = "low"


@dataclass
class Inner:
    b: int
    a: set[int] = field(default_factory=set)


@attrs.define
class Attribute:
    b: int
    a: str


class Shelf(scrapy.Item):
    b = scrapy.Field()
    a = scrapy.Field()


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("text", '"text"'),
        ('quote " backslash \\ tab \t end \x01', r'"quote \" backslash \\ tab \t end \u0001"'),
        ("한국어 🐍", '"한국어 🐍"'),
        (1, "1"),
        (-(2**63), "-9223372036854775808"),
        (2**64 - 1, "18446744073709551615"),
        (1.5, "1.5"),
        (1e300, "1e+300"),
        (True, "true"),
        (None, "null"),
        ({"b": 1, "a": {}}, '{"a":{},"b":1}'),
        ([1, [2]], "[1,[2]]"),
        ((1, (2,)), "[1,[2]]"),
        (Inner(1, {3, 2}), '{"a":[2,3],"b":1}'),
        (Shelf(b=1, a="x"), '{"a":"x","b":1}'),
        (Attribute(1, "x"), '{"a":"x","b":1}'),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=SEOUL), '"2026-01-02T03:04:05.000006+09:00"'),
        (datetime(2026, 1, 2, 3, 4, 5), '"2026-01-02T03:04:05"'),  # noqa: DTZ001  a site's own
        (date(2026, 1, 2), '"2026-01-02"'),
        (time(3, 4, 5), '"03:04:05"'),
        (time(3, 4, 5, tzinfo=SEOUL), '"03:04:05+09:00"'),
        (Decimal("0.10"), "0.10"),
        (Decimal("-1E+3"), "-1E+3"),
        (Decimal("123456789012345678901234567890.12"), "123456789012345678901234567890.12"),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        ([10**40], "[1" + "0" * 40 + "]"),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Colour.RED, '"red"'),
        (Level.HIGH, "3"),
        (Tone.LOW, '"low"'),
        (b"\x00\xff", '"AP8="'),
        (bytearray(b"\x00\xff"), '"AP8="'),
        (memoryview(b"\x00\xff"), '"AP8="'),
        ({"b", "a"}, '["a","b"]'),
        (frozenset({10, 9}), "[10,9]"),
        ({(2, "x"), (1, "y")}, '[[1,"y"],[2,"x"]]'),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (float("-inf"), "null"),
        (Decimal("NaN"), "null"),
        (Decimal("sNaN"), "null"),
        (Decimal("Infinity"), "null"),
        ({2: "a", None: "b", True: "c"}, '{"2":"a","None":"b","True":"c"}'),
        ({date(2026, 1, 2): 1}, '{"2026-01-02":1}'),
        ("\\u0000 written out", r'"\\u0000 written out"'),
    ],
    ids=repr,
)
def test_each_value_has_its_stated_form(value: Any, json: str) -> None:
    assert value_json(value) == json


@pytest.mark.parametrize("trigger", [2**70, {1: 1}, "\x00"], ids=repr)
@pytest.mark.parametrize(
    "value",
    [
        "text",
        2**64 - 1,
        Inner(1, {3, 2}),
        Shelf(b=1, a="x"),
        Decimal("0.10"),
        datetime(2026, 1, 2, tzinfo=SEOUL),
        time(1, 2),
        UUID(int=1),
        Colour.RED,
        Level.HIGH,
        Tone.LOW,
        b"\x00",
        frozenset({10, 9}),
        float("nan"),
    ],
    ids=repr,
)
def test_a_value_keeps_its_form_beside_one_that_takes_the_long_way(value: Any, trigger: Any) -> None:
    """Else the same content would have two hashes, and a neighbour's mend would make a version."""
    both = orjson.loads(json_of({"url": "u", "v": value, "w": trigger}))
    assert orjson.dumps(both["v"], option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        orjson.loads(value_json(value)), option=orjson.OPT_SORT_KEYS
    )


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("a\udfffb\ud800", "a\ufffdb\ufffd"),
        ("\x00\udc80🐍", "\ufffd\ufffd🐍"),
    ],
    ids=ascii,
)
def test_what_postgresql_cannot_hold_is_mended_and_counted(text: str, mended: str) -> None:
    encoder = encoder_of()
    item = {"url": "u", "v": [text], text: {"n": {text}}}
    assert orjson.loads(json_of(item, encoder)) == {"url": "u", "v": [mended], mended: {"n": [mended]}}
    assert encoder.mended == 1
    json_of({"url": "u", "big": 2**70}, encoder)
    assert encoder.mended == 1


def test_an_item_is_encoded_without_being_changed() -> None:
    item = {"url": "u", "v": ["\x00"], "s": {1}}
    json_of(item)
    assert item == {"url": "u", "v": ["\x00"], "s": {1}}


class Loop(list[Any]):
    """A list that holds itself."""


def loop() -> Loop:
    itself = Loop()
    itself.append(itself)
    return itself


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("text", "a str is not an item"),
        (None, "a NoneType is not an item"),
        ([{"url": "u"}], "a list is not an item"),
        ({"name": "x"}, "key field 'url' is missing"),
        ({"url": ""}, "key field 'url' is missing"),
        ({"url": None}, "key field 'url' is missing"),
        ({"url": True}, "key field 'url' is a bool"),
        ({"url": 1.5}, "key field 'url' is a float"),
        ({"url": ["u"]}, "key field 'url' is a list"),
        ({"url": 2**64}, "more than 64 bits"),
        ({"url": "a\x00"}, "a NUL or a lone surrogate"),
        ({"url": "\ud800"}, "a NUL or a lone surrogate"),
        ({"url": "u", "v": object()}, "builtins.object has no JSON form"),
        ({"url": "u", "v": lambda: 1}, "function has no JSON form"),
        ({"url": "u", "v": 1j}, "builtins.complex has no JSON form"),
        ({"url": "u", "v": {1, "a", object}}, "has no JSON form"),
        ({"url": "u", "v": 10**5000}, "has no JSON form"),
        ({"url": "u", "v": nested(300)}, "Recursion"),
        ({"url": "u", "v": nested(100_000)}, "recursion"),
        ({"url": "u", "v": loop()}, "ecursion"),
        ({"url": "u", "v": "x" * 100_000}, "DELIVERY_ITEM_MAX_BYTES=100000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_row_form_is_refused_and_becomes_a_dead_letter(item: Any, reason: str) -> None:
    encoder = encoder_of()
    with pytest.raises(ItemRefused, match=reason) as caught:
        encoder.encode(item)
    letter = encoder.dead_letter(item, caught.value)
    assert letter.stream == encoder.stream
    assert not letter.replayable
    assert letter.reason == str(caught.value)
    assert 0 < len(letter.payload) < 300_000
    assert "\x00" not in letter.key
    letter.payload.decode()


def test_a_dead_letter_keeps_the_key_and_what_the_item_held() -> None:
    item = {"url": "https://shop.example/1", "price": 5, "broken": object()}
    letter = encoder_of().dead_letter(item, ItemRefused("why"))
    assert letter.key == "https://shop.example/1"
    assert b"'price': 5" in letter.payload


@pytest.mark.parametrize("levels", [100, 250])
def test_reasonable_nesting_is_taken(levels: int) -> None:
    assert value_json(nested(levels)) == "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("https://x/?a=b", "https://x/?a=b"),
        (5, "5"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        ("tab\tand\nline \\", "tab\tand\nline \\"),
        ("k" * 100_000, "k" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_key_may_be_text_a_number_or_a_date(value: Any, key: str) -> None:
    encoder = encoder_of("id", max_bytes=1_000_000)
    assert row_of({"id": value}, encoder)["item_key"] == key


def test_a_key_of_several_fields_does_not_blur() -> None:
    encoder = encoder_of(("a", "b"))
    keys = [row_of(item, encoder)["item_key"] for item in ({"a": "1", "b": "2,3"}, {"a": "1,2", "b": "3"})]
    assert keys == ['["1","2,3"]', '["1,2","3"]']
    with pytest.raises(ItemRefused, match="'b' is missing"):
        encoder.encode({"a": 1})


def test_the_platform_adds_source_key_url_time_run_and_host() -> None:
    row = row_of({"url": "u", "n": 1}, encoder_of(keep_every=True))
    assert row | {"key_hash": "", "content_hash": ""} == {
        "source": "shop",
        "item_key": "u",
        "url": "u",
        "data": '{"n":1,"url":"u"}',
        "key_hash": "",
        "content_hash": "",
        "scraped_at": "2026-05-01T12:00:00.000000+00:00",
        "run_id": "run-1",
        "host": "pi",
        "keep_every": "t",
    }
    assert row_of({"url": "u"})["keep_every"] == "f"


@pytest.mark.parametrize(
    ("item", "page_url", "url"),
    [
        ({"id": 1, "url": "own"}, "page", "own"),
        ({"id": 1}, "page", "page"),
        ({"id": 1, "url": 5}, "page", "page"),
        ({"id": 1}, None, None),
        ({"id": 1}, "a\x00\ud800", "a\ufffd\ufffd"),
    ],
)
def test_the_address_is_the_items_own_or_its_pages(item: Any, page_url: str | None, url: str | None) -> None:
    assert row_of(item, encoder_of("id"), page_url)["url"] == url


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_version(content: dict[str, Any], chance: Any) -> None:
    names = list(content)
    chance.shuffle(names)
    one, other = ({**content, "url": "u"}, {"url": "u", **{name: content[name] for name in names}})
    assert row_of(one)["content_hash"] == row_of({**other, "url": "u"})["content_hash"]


@given(VALUES)
def test_whatever_json_can_hold_becomes_a_line_postgresql_can_hold(value: Any) -> None:
    text = json_of({"url": "u", "v": value})
    assert "\x00" not in text
    assert "\\u0000" not in text.replace("\\\\", "")
    orjson.loads(text)


def test_different_content_has_a_different_hash_and_a_different_key_another() -> None:
    one, other = row_of({"url": "u", "n": 1}), row_of({"url": "v", "n": 1})
    assert one["key_hash"] != other["key_hash"]
    assert one["content_hash"] != row_of({"url": "u", "n": 1.0})["content_hash"]
    assert one["content_hash"] == row_of({"n": 1, "url": "u"})["content_hash"]


def test_no_two_items_of_a_run_share_a_moment() -> None:
    moments = iter([NOON, NOON, NOON, NOON + timedelta(microseconds=1), NOON - timedelta(milliseconds=1)])
    encoder = encoder_of(clock=lambda: next(moments))
    times = [row_of({"url": "u"}, encoder)["scraped_at"] for _ in range(5)]
    assert times == sorted(set(cast(list[str], times)))


def test_a_clock_that_is_put_right_is_believed() -> None:
    moments = iter([NOON, NOON - timedelta(days=900)])
    encoder = encoder_of(clock=lambda: next(moments))
    assert [row_of({"url": "u"}, encoder)["scraped_at"] for _ in range(2)] == [
        "2026-05-01T12:00:00.000000+00:00",
        "2023-11-13T12:00:00.000000+00:00",
    ]


def test_a_moment_is_that_of_the_clock_to_the_microsecond_whatever_its_zone() -> None:
    steps = (timedelta(0), timedelta(microseconds=999_999), timedelta(seconds=1), timedelta(hours=36))
    moments = [(NOON + step).astimezone(SEOUL) for step in steps]
    clock = iter(moments)
    encoder = encoder_of(clock=lambda: next(clock))
    times = [row_of({"url": "u"}, encoder)["scraped_at"] for _ in moments]
    assert [datetime.fromisoformat(str(time)) for time in times] == moments
