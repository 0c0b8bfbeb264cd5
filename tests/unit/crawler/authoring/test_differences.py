"""What a page gives against what it must give: a line for each difference, and none without one."""

from typing import Any

import pytest

from crawler.authoring.differences import differences
from crawler.authoring.golden import Number


def item(key: str, **data: Any) -> dict[str, Any]:
    return {"key": key, "url": f"https://shop.example/{key}", "data": data}


def link(url: str, callback: str = "parse_item") -> dict[str, Any]:
    return {"url": url, "callback": callback}


def document(*items: dict[str, Any], links: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    return {"items": list(items), "links": list(links), **more}


PRICE = Number("51.77")
LONG = "All is well. " * 30


@pytest.mark.parametrize(
    ("expected", "found", "lines"),
    [
        (document(item("a", n=PRICE)), document(item("a", n=PRICE)), []),
        (
            document(item("a", n=PRICE)),
            document(item("a", n=Number("51.770"))),
            ["item a: data: n: expected 51.77, found 51.770"],
        ),
        (
            document(item("a", n=PRICE)),
            document(item("a", n="51.77")),
            ['item a: data: n: expected 51.77, found "51.77"'],
        ),
        (document(item("a", n=None)), document(item("a")), ["item a: data: n: missing; expected: null"]),
        (document(item("a")), document(item("a", n=[])), ["item a: data: n: not expected: []"]),
        (
            document(item("a", n=["x", "y"])),
            document(item("a", n=["x", "z", "w"])),
            [
                'item a: data: n: 1: expected "y", found "z"',
                'item a: data: n: 2: not expected: "w"',
            ],
        ),
        (
            document(item("a"), item("b")),
            document(item("b")),
            ['item a: missing; expected: {"key":"a","url":"https://shop.example/a","data":{}}'],
        ),
        (
            document(item("a"), item("a", n=PRICE)),
            document(item("a"), item("a", n=None)),
            ["item a (2): data: n: expected 51.77, found null"],
        ),
        (
            document(item("a"), item("b")),
            document(item("b"), item("a")),
            ["items: in another order: expected a, b; found b, a"],
        ),
        (
            document(links=(link("u"), link("v"))),
            document(links=(link("u", "parse_page"), link("v"))),
            ['link u: callback: expected "parse_item", found "parse_page"'],
        ),
        (
            document(),
            document(refused=["no key"], raised="ValueError: x"),
            ['refused: not expected: ["no key"]', 'raised: not expected: "ValueError: x"'],
        ),
        (document(raised="a"), document(), ['raised: missing; expected: "a"']),
    ],
)
def test_names_what_differs(expected: dict[str, Any], found: dict[str, Any], lines: list[str]) -> None:
    assert differences(expected, found) == lines


def test_two_long_texts_are_shown_from_where_they_part() -> None:
    [line] = differences(document(item("a", n=f"{LONG}yes")), document(item("a", n=f"{LONG}no")))
    assert line.endswith('"'), line
    assert "expected ..." in line
    assert 'yes"' in line
    assert "found ..." in line
    assert 'no"' in line
    assert len(line) < 200


def test_a_long_line_is_cut() -> None:
    [line] = differences(document(item("a", n=PRICE)), document(item("a", n=LONG)))
    assert line.endswith("...")
    assert len(line) < 300
