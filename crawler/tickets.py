"""The receipt of a page: it settles when every item of the page has left RAM."""

from collections.abc import Callable


class Ticket:
    """Counts the items of one page until each is in PostgreSQL, the spool or the dead letters.

    Lives in the reactor thread. ``on_settled(seen)`` is called once, when the callback has ended and
    no item is outstanding: ``seen`` is True only if every item is safe and the callback ended well.
    """

    __slots__ = ("_complete", "_on_settled", "_outstanding", "_whole")

    def __init__(self, on_settled: Callable[[bool], None]) -> None:
        self._on_settled = on_settled
        self._outstanding = 0
        self._whole = True
        self._complete: bool | None = None

    def issue(self) -> None:
        """One more item of this page is on its way."""
        self._outstanding += 1

    def redeem(self, items: int = 1) -> None:
        """``items`` of this page are safe."""
        self._outstanding -= items
        self._settle_if_done()

    def void(self) -> None:
        """One item of this page will never be safe: the page must be fetched again."""
        self._whole = False
        self.redeem()

    def close(self, *, complete: bool) -> None:
        """The callback has ended: ``complete`` is False if it raised, so that items may be missing."""
        self._complete = complete
        self._settle_if_done()

    def _settle_if_done(self) -> None:
        if self._complete is not None and self._outstanding == 0:
            self._on_settled(self._complete and self._whole)
