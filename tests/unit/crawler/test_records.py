"""COPY text lines: whatever text goes in comes out, and no two texts blur into one hash."""

import itertools

import orjson
from hypothesis import given
from hypothesis import strategies as st

from crawler.records import copy_line, hash128, line_fields, split_lines

# What PostgreSQL can hold; items.py mends the rest.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")) | st.sampled_from(
    ["\\N", "\\.", "\\", "\t", "\n", "\r\n", "\\t", "", "a\\", "\x0b\x0c\x1c\x85\u2028"]
)
FIELDS = st.lists(st.none() | TEXTS, min_size=1, max_size=8)


@given(FIELDS)
def test_a_line_holds_any_text(fields: list[str | None]) -> None:
    line = copy_line(fields)
    assert line.count(b"\n") == 1
    assert line_fields(line) == fields


@given(TEXTS)
def test_a_line_holds_any_text_in_json(text: str) -> None:
    fields = line_fields(copy_line([orjson.dumps({text: [text]}), None]))
    assert fields[0] is not None
    assert orjson.loads(fields[0]) == {text: [text]}


@given(st.lists(FIELDS, max_size=5))
def test_joined_lines_come_apart_again(rows: list[list[str | None]]) -> None:
    lines = [copy_line(row) for row in rows]
    assert split_lines(b"".join(lines)) == lines


def test_null_is_not_the_text_that_looks_like_it() -> None:
    assert copy_line([None, "\\N"]) == b"\\N\t\\\\N\n"


def test_a_number_is_its_digits() -> None:
    assert copy_line([7, -1]) == b"7\t-1\n"


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_different_parts_have_different_hashes(some: list[bytes], others: list[bytes]) -> None:
    assert (hash128(*some) == hash128(*others)) == (some == others)


def test_no_way_of_cutting_a_text_gives_the_same_hash() -> None:
    cuts = [(b"", b"abc"), (b"a", b"bc"), (b"ab", b"c"), (b"abc", b""), (b"abc",), (b"a", b"b", b"c")]
    assert all(hash128(*one) != hash128(*other) for one, other in itertools.combinations(cuts, 2))
    assert len(hash128(b"abc")) == 16
