"""The index of what is remembered: it may be wrong about a key it has, never about one it lacks."""

from hashlib import blake2b

import pytest

from crawler.memory import key_index
from crawler.memory.key_index import KeyIndex


def keys(first: int, after_last: int) -> list[bytes]:
    return [blake2b(b"%d" % number, digest_size=16).digest() for number in range(first, after_last)]


def loaded(stored: list[bytes]) -> KeyIndex:
    index = KeyIndex()
    starts = [key[:8] for key in sorted(stored)]
    for place in range(0, len(starts), 7):
        index.load(b"".join(starts[place : place + 7]))
    return index


def test_knows_what_was_loaded_and_nothing_else() -> None:
    index = loaded(keys(0, 1000))
    assert len(index) == 1000
    assert all(key in index for key in keys(0, 1000))
    assert not any(key in index for key in keys(1000, 3000))


def test_an_empty_one_knows_nothing() -> None:
    index = loaded([])
    assert len(index) == 0
    assert keys(0, 1)[0] not in index


def test_knows_what_was_added_also_when_it_was_sorted_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "_FRESH_KEYS", 64)
    index = loaded(keys(0, 100))
    assert all(index.add(key) for key in keys(100, 1000))
    assert not any(index.add(key) for key in keys(0, 1000))
    assert len(index) == 1000
    assert all(key in index for key in keys(0, 1000))
    assert not any(key in index for key in keys(1000, 3000))


def test_the_extreme_keys_are_keys_like_others() -> None:
    lowest, highest = bytes(16), b"\xff" * 16
    index = loaded([lowest, highest])
    assert lowest in index
    assert highest in index
    assert bytes(7) + b"\x01" + bytes(8) not in index
