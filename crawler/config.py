"""The one place where this project's own settings are read, checked and given types.

The secret ``DATABASE_URL`` is read from the environment only, or from the file that
``DATABASE_URL_FILE`` names: a command line can be read by every user of the machine.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crawler import options
from crawler.delivery.batch import Limits
from crawler.delivery.postgres import public_address, with_defaults
from crawler.exceptions import ConfigurationError

T = TypeVar("T")
SECRET = "DATABASE_URL"  # noqa: S105 -- the name of the setting, not its value


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything an operator may set, checked. ``database_url`` is None when items only wait."""

    database_url: str | None
    state_dir: Path
    host_name: str
    contact: str
    limits: Limits
    item_max_bytes: int
    spool_max_bytes: int
    call_deadline_seconds: float
    shutdown_seconds: float
    drain_batches_per_second: float
    drain_at_close_seconds: float
    deltafetch_enabled: bool
    deltafetch_reset: bool
    deltafetch_dir: Path | None
    page_expiry_days: float
    max_pages: int
    retry_delay_seconds: float
    retry_after_max_seconds: float
    politeness_floor_seconds: float

    def __repr__(self) -> str:
        """Return a text without the secret, for logs and errors."""
        return f"Configuration(database={self.database}, state_dir={str(self.state_dir)!r})"

    @property
    def database(self) -> str:
        """Where items go, for people: never the password."""
        return "none" if self.database_url is None else public_address(self.database_url)

    @property
    def spool_path(self) -> Path:
        """The spool of this host."""
        return self.state_dir / "spool.sqlite"

    @property
    def samples_dir(self) -> Path:
        """Where odd pages are kept for diagnosis, one per source."""
        return self.state_dir / "samples"

    @property
    def ledger_path(self) -> Path:
        """The run ledger of this host."""
        return self.state_dir / "runs.sqlite"

    @property
    def failed_requests_path(self) -> Path:
        """What the sources of this host failed to fetch, and will try again."""
        return self.state_dir / "failed.sqlite"

    @property
    def pages_dir(self) -> Path:
        """Where the page memories of this host are, a file per source."""
        return self.deltafetch_dir or self.state_dir / "pages"


def read_configuration(given: Callable[[str], object], environment: Mapping[str, str]) -> Configuration:
    """Given how to look up a Scrapy setting and the environment, return the checked settings.

    Raise ConfigurationError with every problem at once; a secret's value is in none of them.
    """
    reader = _Reader(given)
    reader.problems += _unknown_names(environment)
    if given(SECRET):
        reader.problems.append(
            f"{SECRET} is given with -s, where every user of this machine can read it; "
            f"allowed: the environment variable {SECRET}, or a file named by {SECRET}_FILE"
        )
    values = Configuration(
        database_url=_database_url(environment, reader.problems),
        state_dir=reader.value(options.STATE_DIR, Path("/")),
        host_name=reader.value(options.HOST_NAME, ""),
        contact=reader.value(options.CONTACT, ""),
        limits=Limits(
            batch_max_items=reader.value(options.BATCH_MAX_ITEMS, 1),
            batch_max_bytes=reader.value(options.BATCH_MAX_BYTES, 1),
            linger_seconds=reader.value(options.LINGER_SECONDS, 0.0),
            queue_max_items=reader.value(options.QUEUE_MAX_ITEMS, 1),
            queue_max_bytes=reader.value(options.QUEUE_MAX_BYTES, 1),
        ),
        item_max_bytes=reader.value(options.ITEM_MAX_BYTES, 1),
        spool_max_bytes=reader.value(options.SPOOL_MAX_BYTES, 1),
        call_deadline_seconds=reader.value(options.CALL_DEADLINE_SECONDS, 1.0),
        shutdown_seconds=reader.value(options.SHUTDOWN_SECONDS, 1.0),
        drain_batches_per_second=reader.value(options.DRAIN_BATCHES_PER_SECOND, 1.0),
        drain_at_close_seconds=reader.value(options.DRAIN_AT_CLOSE_SECONDS, 1.0),
        deltafetch_enabled=reader.value(options.DELTAFETCH_ENABLED, True),
        deltafetch_reset=reader.value(options.DELTAFETCH_RESET, False),
        deltafetch_dir=reader.value(options.DELTAFETCH_DIR, None),
        page_expiry_days=reader.value(options.DELTAFETCH_EXPIRY_DAYS, 1.0),
        max_pages=reader.value(options.DELTAFETCH_MAX_PAGES, 1),
        retry_delay_seconds=reader.value(options.RETRY_DELAY_SECONDS, 0.0),
        retry_after_max_seconds=reader.value(options.RETRY_AFTER_MAX_SECONDS, 0.0),
        politeness_floor_seconds=reader.value(options.POLITENESS_FLOOR_SECONDS, 0.0),
    )
    if not reader.problems and values.item_max_bytes * 2 > values.spool_max_bytes:
        reader.problems.append(
            f"{options.PREFIX}{options.ITEM_MAX_BYTES.name}={values.item_max_bytes} does not fit the "
            "spool; allowed: at most half of "
            f"{options.PREFIX}{options.SPOOL_MAX_BYTES.name}={values.spool_max_bytes}"
        )
    if reader.problems:
        raise ConfigurationError(reader.problems)
    return values


class _Reader:
    """Reads settings one by one and remembers what was wrong with each."""

    def __init__(self, given: Callable[[str], object]) -> None:
        self._given = given
        self.problems: list[str] = []

    def value(self, setting: options.Setting[T], if_wrong: T) -> T:
        text = self._given(setting.name)
        text = setting.default if text is None else str(text)
        try:
            return setting.read(text)
        except (ValueError, OverflowError):
            self.problems.append(
                f"{options.PREFIX}{setting.name}={text!r} ({setting.meaning}); allowed: {setting.allowed}"
            )
            return if_wrong


def _database_url(environment: Mapping[str, str], problems: list[str]) -> str | None:
    url = environment.get(SECRET, "").strip()
    file_name = environment.get(f"{SECRET}_FILE")
    if url and file_name:
        problems.append(f"{SECRET} and {SECRET}_FILE are both set; allowed: one of them")
        return None
    if file_name:
        try:
            url = Path(file_name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            problems.append(
                f"{SECRET}_FILE={file_name!r} cannot be read: {reason}; allowed: a text file with the URL"
            )
            return None
    if not url:
        return None
    try:
        with_defaults(url)
    except ValueError:
        problems.append(
            f"{SECRET} (value not shown) cannot be read; allowed: postgresql://user:password@host/database "
            "with special characters of the password percent-encoded, or a libpq DSN"
        )
        return None
    return url


def _unknown_names(environment: Mapping[str, str]) -> list[str]:
    known = {options.PREFIX + setting.name for setting in options.SETTINGS}
    problems = []
    for name in sorted(environment):
        if not name.startswith(options.PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(sorted(known))}"
        problems.append(f"{name} is not a setting of this program; {hint}")
    return problems
