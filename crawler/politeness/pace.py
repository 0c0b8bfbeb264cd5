"""How slow a crawl has to be at one site, whatever its spider would like."""

from functools import lru_cache
from ipaddress import ip_address

LONGEST_CRAWL_DELAY_SECONDS = 3600.0
"""A robots.txt that asks for more is heard as if it asked for this."""


def at_least(least_seconds: float, delay: float, jitter: float) -> tuple[float, float]:
    """Given the least pause, a delay and its jitter (a share of it), return both so that no pause is shorter.

    Scrapy varies each pause by the jitter in both directions; what it may vary is what is above the least.
    """
    delay = max(delay, least_seconds)
    if delay > 0.0:
        jitter = min(jitter, 1.0 - least_seconds / delay)
    return delay, jitter


def crawl_delay_seconds(*asked: float | None) -> float:
    """Given what a robots.txt asks for, in seconds or None, return the longest of it that makes sense."""
    return max((min(each, LONGEST_CRAWL_DELAY_SECONDS) for each in asked if each and each > 0.0), default=0.0)


@lru_cache(maxsize=256)
def is_here(host: str) -> bool:
    """Return True for this machine's own addresses, and for none (data:, file:): no site is asked there."""
    if host in ("", "localhost") or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
