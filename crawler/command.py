"""What the operator's commands share: settings checked first, one exit status, text or JSON."""

import argparse
import json
import os
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.settings import BaseSettings

from crawler import checks
from crawler.exceptions import ConfigurationError, CrawlerError

# Every command is imported by each of them, also by `scrapy list`: drivers only when one acts.
if TYPE_CHECKING:
    from crawler.config import Configuration

FINE, FINDINGS, MISUSE = 0, 1, 2


def start_up_problem(settings: BaseSettings) -> str | None:
    """Given the Scrapy settings, return all that would keep a command from working, or None."""
    findings = checks.run()
    if findings:
        return "\n".join(f"{found.id}: {found.message}; {found.hint}" for found in findings)
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
