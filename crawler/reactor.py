"""The running reactor. Importing Twisted's installs one, so it is looked up late, and only here."""

from collections.abc import Callable
from typing import Any


def running_reactor() -> Any:
    """Return the reactor Scrapy has installed. Its interfaces are declared dynamically, hence Any."""
    from twisted.internet import reactor

    return reactor


def call_soon(work: Callable[..., object], *arguments: object) -> None:
    """From any thread: have the reactor's thread do this next. Raise RuntimeError if it has ended.

    Not by ``callFromThread``: that makes a timer of it, Twisted's timers go by the time of day, and a
    clock that is set back by an hour in between holds the news up for an hour.
    """
    running_reactor()._asyncioEventloop.call_soon_threadsafe(work, *arguments)
