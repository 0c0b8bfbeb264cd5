"""Time that passes only when a test says so."""


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
