"""Time that passes only when a test says so, or not as it should."""

import time
from collections.abc import Callable
from random import Random

DAY_SECONDS = 86_400.0


class FakeClock:
    """A clock of seconds; call it to read it."""

    def __init__(self, now: float = 1000.0) -> None:
        """Given the seconds it shows first, return a clock that stands still."""
        self.now = now

    def __call__(self) -> float:
        """Return the seconds it shows."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let seconds pass."""
        self.now += seconds


class JumpingClock:
    """A wall clock that is set wrong by up to a day, forth or back, each time somebody looks at it."""

    def __init__(self, chance: Random, clock: Callable[[], float] = time.time) -> None:
        """Given chance and a clock that is right."""
        self.jumps = 0
        self._chance = chance
        self._clock = clock

    def __call__(self) -> float:
        """Return a wrong time."""
        self.jumps += 1
        return self._clock() + self._chance.uniform(-DAY_SECONDS, DAY_SECONDS)
