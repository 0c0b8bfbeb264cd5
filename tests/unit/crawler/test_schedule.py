"""A schedule is what Debian's cron would take, and nothing else."""

import pytest

from crawler.schedule import in_words


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("17 4 * * *", "At 04:17 every day"),
        ("*/5 * * * *", "Every fifth minute of every hour"),
        ("0 3 * * 0", "At 03:00 on Sunday"),
        ("0 3 * * 7", "At 03:00 on Sunday"),
        ("0 3 1 * mon", "At 03:00 on the first day of month and on Monday"),
        ("  5   0  *  JAN-MAR  * ", "At 00:05 in every month from January through March"),
    ],
)
def test_says_in_words_what_cron_would_do(schedule: str, words: str) -> None:
    assert in_words(schedule) == words


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("", "0 fields"),
        ("@daily", "1 fields"),
        ("* * * *", "4 fields"),
        ("0 * * * * *", "6 fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * 30 2 *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("noon * * * *", "bad minute"),
        ("* * */20 * 1L", "never due"),
    ],
)
def test_says_what_is_wrong(schedule: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        in_words(schedule)
