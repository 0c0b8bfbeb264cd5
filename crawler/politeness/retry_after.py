"""How long a site asks to be left alone: the header Retry-After of RFC 9110, section 10.2.3."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 24 * 3600.0
"""What a site can ask for at most: more is a mistake, or a no that the next try will hear again."""


def wait_seconds(value: bytes, *, date: bytes | None, now: float) -> float | None:
    """Given Retry-After, the answer's own Date and now (seconds since the epoch), return seconds to wait.

    A date is counted from the answer's Date, so that a wrong clock, the site's or ours, does not matter.
    None if the value is neither a number nor a date.
    """
    text = value.decode("latin-1").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return min(float(text), LONGEST_SECONDS)
    until = _moment(text)
    if until is None:
        return None
    sent_at = _moment((date or b"").decode("latin-1"))
    return min(max(0.0, until - (now if sent_at is None else sent_at)), LONGEST_SECONDS)


def _moment(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    # The oldest of HTTP's three forms names no zone; all are in GMT.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
