"""What the operator's commands share: settings checked first, one exit status, text or JSON."""

import argparse
import json
import os
import sys
from abc import abstractmethod
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.settings import BaseSettings

from crawler import checks
from crawler.exceptions import ConfigurationError, CrawlerError

# Every command is imported by each of them, also by `scrapy list`: drivers only when one acts.
if TYPE_CHECKING:
    from crawler.config import Configuration

FINE, FINDINGS, MISUSE = 0, 1, 2


def installation_problem() -> str | None:
    """Return what of this project Python does not find where it should, or None."""
    findings = checks.run()
    return "\n".join(f"{found.id}: {found.message}; {found.hint}" for found in findings) or None


def start_up_problem(settings: BaseSettings) -> str | None:
    """Given the Scrapy settings, return all that would keep a command from working, or None."""
    misplaced = installation_problem()
    if misplaced is not None:
        return misplaced
    try:
        configuration_of(settings)
    except ConfigurationError as error:
        return str(error)
    return None


def configuration_of(settings: BaseSettings) -> "Configuration":
    """Given the Scrapy settings, return ours. Raise ConfigurationError with every problem."""
    from crawler.config import read_configuration

    return read_configuration(settings.get, os.environ)


class OperatorCommand(ScrapyCommand):
    """A command that reports. Exit status 0: fine; 1: findings; 2: misuse or wrong settings."""

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_ENABLED": False}

    @abstractmethod
    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """Do the work and return the exit status. Raise CrawlerError if it cannot be done."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--json``; subclasses add their own."""
        super().add_options(parser)
        parser.add_argument("--json", action="store_true", help="report as JSON")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Check the settings, then act."""
        assert self.settings is not None
        problem = start_up_problem(self.settings)
        if problem is None and args:
            problem = f"not understood: {' '.join(args)}; see --help"
        if problem is not None:
            self._fail(problem, MISUSE)
            return
        try:
            self.exitcode = self.act(configuration_of(self.settings), opts)
        except CrawlerError as error:
            self._fail(str(error), FINDINGS)

    def _fail(self, message: str, status: int) -> None:
        sys.stderr.write(f"{message}\n")
        self.exitcode = status


class ActionCommand(OperatorCommand):
    """A command of several actions: ``scrapy NAME ACTION [ID ...]``."""

    actions: ClassVar[Collection[str]]
    """The names of what it can do."""

    take_ids: ClassVar[Sequence[str]]
    """Those of them that are about single things, which the operator names by their numbers."""

    ids_are: ClassVar[str]
    """What the numbers are of."""

    def syntax(self) -> str:
        """Return the form of the command line."""
        return f"[options] {'|'.join(self.actions)} [ID ...]"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the action and the IDs; subclasses add their own options."""
        super().add_options(parser)
        parser.add_argument("action", choices=sorted(self.actions), help="what to do")
        parser.add_argument("ids", nargs="*", type=int, metavar="ID", help=f"{self.ids_are} (default: all)")

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Take the IDs that follow an option: argparse takes positional arguments in one piece."""
        super().process_options(args, opts)
        opts.ids = [*opts.ids, *(int(text) for text in args if text.isdecimal())]
        args[:] = [text for text in args if not text.isdecimal()]
        if opts.ids and opts.action not in self.take_ids:
            allowed = " and ".join(f"{action} ID ..." for action in self.take_ids)
            raise UsageError(f"{opts.action} takes no ID; allowed: {allowed}", print_help=False)


def moment(seconds: float) -> str:
    """Given seconds since the epoch, return ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def required_database(configuration: "Configuration") -> str:
    """Return the database's URL. Raise CrawlerError with what to do if none is set."""
    if configuration.database_url is None:
        raise CrawlerError(
            "DATABASE_URL is not set; allowed: postgresql://user:password@host/database in the "
            "environment, or a file with it named by DATABASE_URL_FILE"
        )
    return configuration.database_url


def print_json(report: object) -> None:
    """Print a report for programs."""
    print(json.dumps(report, ensure_ascii=False, default=str))
