"""Retry-After: numbers, dates in three forms, clocks that are wrong, and nonsense."""

import pytest

from crawler.politeness.retry_after import LONGEST_SECONDS, wait_seconds

NOON = 784_111_777.0  # 1994-11-06 08:49:37 GMT
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b" 7 ", 7.0),
        (b"1.5", 1.5),
        (b"99999999999", LONGEST_SECONDS),
        (b"9" * 5000, LONGEST_SECONDS),
        (b"Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        (b"Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        (b"Sun Nov  6 08:50:37 1994", 60.0),
        (b"Sun, 06 Nov 1994 08:48:37 GMT", 0.0),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_SECONDS),
        (b"", None),
        (b"-1", None),
        (b"soon", None),
        (b"1e3", None),
        (b"inf", None),
        (b"Sun, 99 Nov 1994 08:49:37 GMT", None),
        (b"\xff\xfe", None),
    ],
)
@pytest.mark.parametrize("date", [DATE, None, b"yesterday"])
def test_what_is_asked_for(value: bytes, seconds: float | None, date: bytes | None) -> None:
    assert wait_seconds(value, date=date, now=NOON) == seconds


@pytest.mark.parametrize("ahead", [-3e8, -3600.0, 3600.0, 3e8])
def test_a_date_is_counted_from_the_clock_that_made_it(ahead: float) -> None:
    """Ours may be off by years: a Pi has no clock that runs without power."""
    assert wait_seconds(b"Sun, 06 Nov 1994 08:51:37 GMT", date=DATE, now=NOON + ahead) == 120.0
    assert wait_seconds(b"120", date=DATE, now=NOON + ahead) == 120.0


def test_without_a_date_of_its_own_an_answer_is_taken_to_be_of_now() -> None:
    assert wait_seconds(b"Sun, 06 Nov 1994 08:51:37 GMT", date=None, now=NOON + 30) == 90.0
