"""Which pages are remembered, at eight bytes of RAM each."""

import sys
from array import array
from bisect import bisect_left

# A fresh key costs some 80 bytes until it is sorted away among others.
_FRESH_KEYS = 32_768


class KeyIndex:
    """A filter: a key it does not know is not remembered; one it knows most likely is.

    Of each key it holds the first eight bytes, and nothing is ever taken out: what it is wrong about
    costs one look into the store. One thread at a time.
    """

    def __init__(self) -> None:
        self._stored = array("Q")
        self._sorted: list[array[int]] = []
        self._fresh: set[int] = set()

    def __len__(self) -> int:
        return len(self._stored) + sum(map(len, self._sorted)) + len(self._fresh)

    def __contains__(self, key: bytes) -> bool:
        number = _number(key)
        return (
            number in self._fresh
            or _holds(self._stored, number)
            or any(_holds(numbers, number) for numbers in self._sorted)
        )

    def load(self, starts: bytes) -> None:
        """Given the first eight bytes of many keys, in ascending order and above all so far, add them."""
        numbers = array("Q", starts)
        if sys.byteorder == "little":
            numbers.byteswap()
        self._stored += numbers

    def add(self, key: bytes) -> bool:
        """Add a key; return True if it was not there."""
        if key in self:
            return False
        self._fresh.add(_number(key))
        if len(self._fresh) == _FRESH_KEYS:
            self._sorted.append(array("Q", sorted(self._fresh)))
            self._fresh.clear()
        return True


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")


def _holds(numbers: "array[int]", number: int) -> bool:
    place = bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number
