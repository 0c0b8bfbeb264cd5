"""Which sites have asked this crawl to leave them alone, and for how long."""

from collections.abc import Callable


class SiteHolds:
    """A short hold is waited for; a site whose holds become too long is closed, and nothing is sent to it.

    What counts is how long a site has kept us waiting since it last gave an answer, so that one which always
    says "in a minute" does not keep a crawl for ever. Reactor thread only.
    """

    def __init__(self, longest_wait_seconds: float, monotonic: Callable[[], float]) -> None:
        """Given how long a crawl waits for one site, and a clock, return a record without holds."""
        self._longest_wait_seconds = longest_wait_seconds
        self._monotonic = monotonic
        self._until: dict[str, float] = {}
        self._waited: dict[str, float] = {}
        self._closed: set[str] = set()

    def hold(self, site: str, seconds: float) -> None:
        """The site asks not to be asked again for so long. Of several wishes the longest counts."""
        now = self._monotonic()
        before = max(self._until.get(site, now), now)
        self._until[site] = max(before, now + seconds)
        self._waited[site] = self._waited.get(site, 0.0) + self._until[site] - before
        if self._waited[site] > self._longest_wait_seconds:
            self._closed.add(site)

    def answered(self, site: str) -> None:
        """The site gave an answer again."""
        if site in self._waited and self.seconds_left(site) == 0.0:
            self._forget(site)

    def seconds_left(self, site: str) -> float:
        """Return how long the site still wants to be left alone; 0 if it does not."""
        return max(0.0, self._until.get(site, 0.0) - self._monotonic())

    def is_closed(self, site: str) -> bool:
        """Return True if nothing may be sent to the site, and nothing should wait for it."""
        if site not in self._closed:
            return False
        if self.seconds_left(site) == 0.0:
            self._forget(site)
            return False
        return True

    def _forget(self, site: str) -> None:
        self._until.pop(site, None)
        self._waited.pop(site, None)
        self._closed.discard(site)
