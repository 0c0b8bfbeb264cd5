"""When a source is due: five cron fields, read as Debian's cron reads them, in the host's time zone."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

FORM = "five cron fields (minute hour day-of-month month day-of-week), e.g. '17 4 * * *'"
_FIELDS = 5


def in_words(schedule: str) -> str:
    """Given a schedule, return what it says in English. Raise ValueError with what is wrong with it."""
    # The library would take a sixth field, of seconds.
    if len(schedule.split()) != _FIELDS:
        raise ValueError(f"{len(schedule.split())} fields")
    try:
        times = CronSim(schedule, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(str(error).lower()) from error
    if next(times, None) is None:
        raise ValueError("never due")
    return times.explain()
