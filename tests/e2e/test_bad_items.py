"""What becomes of items no spider should yield: the stated form, or a dead letter that costs nothing else."""

import json
from typing import Any

import pytest

from tests.e2e.spiders.odd import invalid, kept, refused
from tests.support.crawls import TEST_SPIDERS, Host

pytestmark = pytest.mark.e2e

MENDED = "\ufffd"
STORED: dict[str, Any] = {
    "text": "naïve 🦀 \u2028 \\u0000 \\",
    "numbers": [0, -1, 1.5, True, None],
    "tuple": [1, [2]],
    "datetime": "2026-01-02T03:04:05.678901+09:00",
    "naive datetime": "2026-01-02T03:04:05",
    "date": "2026-01-02",
    "time": "03:04:05",
    "decimal": "12345678901234567890.12345678901234567890",
    "decimal exponent": "1000",
    "decimal nan": None,
    "huge integer": str(10**400),
    "below 64 bits": str(-(2**70)),
    "uuid": "00000000-0000-0000-0000-000000000001",
    "enum": "red",
    "bytes": "AP8=",
    "set": [1, 2, 3],
    "nan": None,
    "infinity": [None, None],
    "nul": f"a{MENDED}b",
    "surrogate": f"a{MENDED}b",
    "nul in a name": {f"a{MENDED}": 1},
    "names": {"1": "a", "None": "b", "(2, 3)": "c"},
    "item in item": {"id": "x", "value": [{"id": "y", "value": 1}]},
    "tabs and lines": "a\tb\nc\rd\\N",
    "long text": "x" * 1_500_000,
}
EXACT_NUMBERS = ("decimal", "decimal exponent", "huge integer", "below 64 bits")
REASONS = {
    "no item": "an int is not an item; yield a dataclass, a dict or a scrapy.Item",
    "text as item": "a str is not an item",
    "no key": "the key field 'id' is missing",
    "key of none": "the key field 'id' is missing",
    "empty key": "the key field 'id' is missing",
    "key of list": "the key field 'id' is a list; allowed: text, a number or a date",
    "key with nul": "the key field 'id' holds a NUL or a lone surrogate",
    "key with surrogate": "the key field 'id' holds a NUL or a lone surrogate",
    "too large": "bytes of JSON; at most DELIVERY_ITEM_MAX_BYTES=",
    "selector": "Selector has no JSON form; extract text or numbers in the spider",
    "deep": "the item has no JSON form",
    "beyond digits": "the item has no JSON form",
    "itself": "the item has no JSON form",
    "function": "has no JSON form",
}


def test_each_odd_item_has_its_stated_form_or_is_a_dead_letter_and_costs_no_neighbour(host: Host) -> None:
    assert STORED.keys() == kept().keys()
    assert REASONS.keys() == refused().keys()
    done = host.crawl("odd", *TEST_SPIDERS)
    assert done.status == 0, done.err[-3000:]

    found = dict(host.query("SELECT item_key, data->'value' FROM scraped_data WHERE source = 'odd'"))
    texts = dict(host.query("SELECT item_key, data->>'value' FROM scraped_data WHERE source = 'odd'"))
    neighbours = {f"before {name}" for name in (*STORED, *REASONS)} | {"last", "a dataclass", "a scrapy item"}
    assert found.keys() == neighbours | STORED.keys()
    for name, value in STORED.items():
        assert (texts if name in EXACT_NUMBERS else found)[name] == value, name
    letters = host.dead_letters()
    for (name, reason), letter in zip(REASONS.items(), letters, strict=True):
        assert reason in letter.reason, name
        assert not letter.replayable
        assert len(letter.payload) <= 100_000
    counts = host.run().counts
    assert (counts.stored, counts.dead, counts.lost) == (len(found), len(REASONS), 0)
    assert (host.run().status, counts.scraped) == ("finished", len(found) + len(REASONS))
    assert "'crawler/items/mended': 3" in done.err
    assert "x" * 100 not in done.err

    listed = host.report("spool", "dead")
    assert [row["reason"] for row in listed] == [letter.reason for letter in letters]
    for_people = host.scrapy("spool", "dead")
    assert for_people.status == 1
    assert "cannot be replayed" in for_people.out
    # What has no row form stays where it is; forgetting is on the account.
    assert host.report("spool", "replay") == {"replayed": 0}
    assert host.report("spool", "dead", "--forget", str(listed[0]["id"])) == {"forgotten": 1}
    assert host.report("spool", "dead", "--forget", "--all") == {"forgotten": len(REASONS) - 1}
    status = host.scrapy("spool", "status", "--json")
    assert (status.status, json.loads(status.out)["findings"]) == (0, [])


INVALID = {
    "price of text": "the field 'price' is a str; allowed: Decimal",
    "price of float": "the field 'price' is a float; allowed: Decimal",
    "no price": "the field 'price' is None, but required; allowed: Decimal",
    "amount of bool": "the field 'amount' is a bool; allowed: int",
    "date for a time": "the field 'seen' is a date; allowed: datetime",
    "number among tags": "the field 'tags[1]' is an int; allowed: str",
    "two at once": (
        "the field 'amount' is a str; allowed: int; the field 'note' is an int; allowed: str or None"
    ),
}


def test_an_item_that_breaks_its_own_types_is_a_dead_letter_with_the_reason(host: Host) -> None:
    assert INVALID.keys() == invalid().keys()
    done = host.crawl("typed", *TEST_SPIDERS)
    assert done.status == 0, done.err
    assert {key for key, _content in host.versions("typed")} == {
        "good",
        "a dict",
        *(f"before {name}" for name in INVALID),
    }
    letters = host.dead_letters()
    assert {letter.key: letter.reason for letter in letters} == INVALID
    assert {letter.code for letter in letters} == {"invalid"}
    assert b"'1.50'" in letters[0].payload
    counts = host.run().counts
    assert (counts.stored, counts.dead, counts.lost) == (2 + len(INVALID), len(INVALID), 0)
    assert f"'crawler/items/invalid': {len(INVALID)}" in done.err
    # A dead letter is safe: both pages count as seen.
    assert "'crawler/pages/settled': 2" in done.err
    # What cannot be checked is said once, when the crawl opens, and no value is in the log.
    assert done.err.count("Items are not held to a type that cannot be read: Typed.loose") == 1
    assert "cannot be read: NeverYielded.loose" in done.err
    assert "1.50" not in done.err


def test_a_row_that_postgresql_refuses_is_replayed_once_its_cause_is_gone(host: Host) -> None:
    host.query("ALTER TABLE scraped_data ADD CONSTRAINT odd_ones CHECK (item_key NOT LIKE '%7')")
    done = host.crawl("stream", *TEST_SPIDERS)
    assert done.status == 0, done.err
    assert (host.run().counts.stored, host.run().counts.dead) == (180, 20)
    letters = host.dead_letters()
    assert {letter.code for letter in letters} == {"23514"}
    assert all("odd_ones" in letter.reason and letter.replayable for letter in letters)

    host.query("ALTER TABLE scraped_data DROP CONSTRAINT odd_ones")
    assert host.report("spool", "replay") == {"replayed": 20}
    assert host.report("spool", "drain")["waiting"] == 0
    assert host.count("stream") == 200
    [source] = host.report("spool", "status")["sources"]
    assert (source["stored"], source["dead"], source["findings"]) == (200, 0, [])


def test_keys_of_several_fields_are_told_apart_but_a_number_from_its_text_is_not(host: Host) -> None:
    assert host.crawl("composite", *TEST_SPIDERS).status == 0
    keys = [key for (key,) in host.query("SELECT item_key FROM scraped_data ORDER BY id")]
    assert keys.pop(3) == keys[0] == '["a","1"]'
    assert keys[1:] == ['["a","2"]', '["b","1"]', '["\\",\\"","1"]', '["2026-01-02","1"]']
    [letter] = host.dead_letters()
    assert "the key field 'number' is missing" in letter.reason


@pytest.mark.slow
def test_a_time_series_keeps_every_observation(host: Host) -> None:
    for _ in range(2):
        assert host.crawl("series", *TEST_SPIDERS).status == 0
    assert host.count("series") == 10
