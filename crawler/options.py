"""What an operator may set: each setting's name, default, allowed form and meaning.

A setting ``NAME`` has a default here; the environment's ``CRAWLER_NAME`` wins over it, and
``-s NAME=value`` on the command line wins over both.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PREFIX = "CRAWLER_"

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting: its default as an operator would write it, and how its text becomes a value."""

    name: str
    default: str
    read: Callable[[str], T]
    allowed: str
    meaning: str


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not lowest <= value <= highest:
            raise ValueError(text)
        return value

    return read


def _number(lowest: float, highest: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not lowest <= value <= highest:
            raise ValueError(text)
        return value

    return read


def _size(lowest: str, highest: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = re.fullmatch(r"(\d+)\s*([KMG]?)", text.strip())
        if match is None:
            raise ValueError(text)
        return int(match[1]) * _UNITS[match[2]]

    def read(text: str) -> int:
        value = parse(text)
        if not parse(lowest) <= value <= parse(highest):
            raise ValueError(text)
        return value

    return read


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError(text)
    for folder in (path, *path.parents):
        if folder.exists():
            if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
                return path
            break
    raise ValueError(text)


def _other_folder(text: str) -> Path | None:
    return _folder(text) if text else None


def _yes_or_no(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return values[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise ValueError(text)
    return text


def _contact(text: str) -> str:
    if text and not re.fullmatch(r"(mailto:\S+@\S+|https?://\S+)", text):
        raise ValueError(text)
    return text


def _whole_allowed(lowest: int, highest: int) -> str:
    return f"a whole number from {lowest} to {highest}"


STATE_DIR = Setting(
    "STATE_DIR",
    "~/.local/state/data-crawler",
    _folder,
    "an absolute path of a folder that this user may write to, or may make",
    "Spool, run ledger and page memory: the one folder to keep on the card",
)
HOST_NAME = Setting(
    "HOST_NAME",
    socket.gethostname(),
    _host,
    "1 to 100 letters, digits, dots, dashes or underscores",
    "What this machine is called in every row it stores",
)
CONTACT = Setting(
    "CONTACT",
    "",
    _contact,
    "an address a site's owner can write to, e.g. mailto:me@example.org or https://example.org/me",
    "Who to write to about this crawler: it is sent with every request, as part of USER_AGENT",
)
BATCH_MAX_ITEMS = Setting(
    "DELIVERY_BATCH_MAX_ITEMS",
    "500",
    _whole(1, 10_000),
    _whole_allowed(1, 10_000),
    "A batch goes to PostgreSQL when it holds this many items",
)
BATCH_MAX_BYTES = Setting(
    "DELIVERY_BATCH_MAX_BYTES",
    "512K",
    _size("1K", "64M"),
    "a size from 1K to 64M, e.g. 524288 or 512K",
    "or this many bytes",
)
LINGER_SECONDS = Setting(
    "DELIVERY_LINGER_SECONDS",
    "1",
    _number(0.0, 60.0),
    "seconds from 0 to 60",
    "or when its first item has waited this long",
)
QUEUE_MAX_ITEMS = Setting(
    "DELIVERY_QUEUE_MAX_ITEMS",
    "2000",
    _whole(1, 1_000_000),
    _whole_allowed(1, 1_000_000),
    "The crawl waits while this many items are in RAM",
)
QUEUE_MAX_BYTES = Setting(
    "DELIVERY_QUEUE_MAX_BYTES",
    "8M",
    _size("1K", "1G"),
    "a size from 1K to 1G, e.g. 8M",
    "or this many bytes",
)
ITEM_MAX_BYTES = Setting(
    "DELIVERY_ITEM_MAX_BYTES",
    "8M",
    _size("1K", "128M"),
    "a size from 1K to 128M, e.g. 8M",
    "An item with more JSON than this becomes a dead letter",
)
CALL_DEADLINE_SECONDS = Setting(
    "DELIVERY_CALL_DEADLINE_SECONDS",
    "10",
    _number(0.5, 120.0),
    "seconds from 0.5 to 120",
    "No exchange with PostgreSQL lasts longer",
)
SHUTDOWN_SECONDS = Setting(
    "DELIVERY_SHUTDOWN_SECONDS",
    "4",
    _number(0.0, 8.0),
    "seconds from 0 to 8",
    "After a stop signal no exchange with PostgreSQL lasts longer; what it has not taken is spooled",
)
DRAIN_BATCHES_PER_SECOND = Setting(
    "SPOOL_DRAIN_BATCHES_PER_SECOND",
    "10",
    _number(0.1, 1000.0),
    "a number from 0.1 to 1000",
    "How fast waiting batches are sent beside live ones",
)
DRAIN_AT_CLOSE_SECONDS = Setting(
    "SPOOL_DRAIN_AT_CLOSE_SECONDS",
    "30",
    _number(0.0, 3600.0),
    "seconds from 0 to 3600",
    "How long a run that has finished goes on sending waiting batches",
)
SPOOL_MAX_BYTES = Setting(
    "SPOOL_MAX_BYTES",
    "64M",
    _size("1M", "64G"),
    "a size from 1M to 64G, e.g. 64M",
    "The spool's cap, reserved on the card when it is first made",
)
DELTAFETCH_ENABLED = Setting(
    "DELTAFETCH_ENABLED",
    "1",
    _yes_or_no,
    "1 or 0",
    "Use the page memory; without it a run fetches every page and remembers none",
)
DELTAFETCH_DIR = Setting(
    "DELTAFETCH_DIR",
    "",
    _other_folder,
    "an absolute path of a folder that this user may write to, or may make",
    "Where the page memories are, one file per source; by default `pages/` in the state folder",
)
DELTAFETCH_RESET = Setting(
    "DELTAFETCH_RESET",
    "0",
    _yes_or_no,
    "1 or 0",
    "Forget first which pages the source has",
)
DELTAFETCH_EXPIRY_DAYS = Setting(
    "DELTAFETCH_EXPIRY_DAYS",
    "90",
    _number(0.0, 36500.0),
    "days from 0 to 36500",
    "A page that was last read in full longer ago is read in full again",
)
DELTAFETCH_MAX_PAGES = Setting(
    "DELTAFETCH_MAX_PAGES",
    "500000",
    _whole(1, 10_000_000),
    _whole_allowed(1, 10_000_000),
    "A source remembers at most this many pages, those it has read last",
)
RETRY_DELAY_SECONDS = Setting(
    "RETRY_DELAY_SECONDS",
    "10",
    _number(0.0, 3600.0),
    "seconds from 0 to 3600",
    "The pause before each of the two repeats of a request, and for a site that answers 429 without a time",
)
RETRY_AFTER_MAX_SECONDS = Setting(
    "RETRY_AFTER_MAX_SECONDS",
    "120",
    _number(0.0, 3600.0),
    "seconds from 0 to 3600",
    "How long a crawl waits for a site that asks to be left alone; beyond that, later runs do",
)
POLITENESS_FLOOR_SECONDS = Setting(
    "POLITENESS_FLOOR_SECONDS",
    "0.25",
    _number(0.0, 60.0),
    "seconds from 0 to 60",
    "No spider asks a site more often than once in this time, whatever its own settings; this machine's own "
    "addresses are exempt",
)
SETTINGS: tuple[Setting[Any], ...] = (
    STATE_DIR,
    HOST_NAME,
    CONTACT,
    BATCH_MAX_ITEMS,
    BATCH_MAX_BYTES,
    LINGER_SECONDS,
    QUEUE_MAX_ITEMS,
    QUEUE_MAX_BYTES,
    ITEM_MAX_BYTES,
    CALL_DEADLINE_SECONDS,
    SHUTDOWN_SECONDS,
    DRAIN_BATCHES_PER_SECOND,
    DRAIN_AT_CLOSE_SECONDS,
    SPOOL_MAX_BYTES,
    DELTAFETCH_ENABLED,
    DELTAFETCH_DIR,
    DELTAFETCH_RESET,
    DELTAFETCH_EXPIRY_DAYS,
    DELTAFETCH_MAX_PAGES,
    RETRY_DELAY_SECONDS,
    RETRY_AFTER_MAX_SECONDS,
    POLITENESS_FLOOR_SECONDS,
)


def defaults_and_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Given the environment, return the text of every setting, for ``crawler/settings.py``."""
    return {setting.name: environment.get(PREFIX + setting.name, setting.default) for setting in SETTINGS}
