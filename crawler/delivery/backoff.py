"""When to try a failing server again. Time and chance come in as arguments."""

from dataclasses import dataclass
from math import inf

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


def wait_seconds(failures: int, chance: float) -> float:
    """Given how often in a row it failed (1 or more) and a number in [0, 1), return seconds to wait.

    Doubles from 1 s to 30 s; chance takes off up to half, so that several crawlers do not come back
    to a recovering NAS in step ("equal jitter").
    """
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 10))
    return longest * (1.0 - chance / 2.0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed while the server answers; after a failure open until ``retry_at`` (monotonic seconds)."""

    failures: int = 0
    retry_at: float = -inf

    def allows(self, now: float) -> bool:
        """Return True if the server may be tried at ``now``."""
        return now >= self.retry_at

    def failed(self, now: float, chance: float) -> "Breaker":
        """Return the breaker after one more failure at ``now``."""
        failures = self.failures + 1
        return Breaker(failures, now + wait_seconds(failures, chance))

    def succeeded(self) -> "Breaker":
        """Return the breaker after a success."""
        return self if self.failures == 0 else Breaker()
