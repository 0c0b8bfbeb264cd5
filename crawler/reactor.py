"""The running reactor. Importing Twisted's installs one, so it is looked up late, and only here."""

from typing import Any


def running_reactor() -> Any:
    """Return the reactor Scrapy has installed. Its interfaces are declared dynamically, hence Any."""
    from twisted.internet import reactor

    return reactor
