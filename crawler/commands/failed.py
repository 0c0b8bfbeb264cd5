"""``scrapy failed``: what could not be fetched and waits for a later run of its source."""

import argparse
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

from scrapy.exceptions import UsageError

from crawler.command import FINDINGS, FINE, ActionCommand, moment, print_json

if TYPE_CHECKING:
    from crawler.config import Configuration
    from crawler.memory.failed_requests import FailedRequest, FailedRequests

Action: TypeAlias = "Callable[[FailedRequests, argparse.Namespace], int]"

_TIMES = ("first_failed_at", "last_failed_at", "next_try_at")


class Command(ActionCommand):
    """One action per thing an operator does with the ledger of failed requests."""

    actions = ("list", "retry", "forget")
    take_ids = actions
    ids_are = "failed requests"

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "Show what failed to be fetched, try it again soon, or never"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "list: the requests that failed after three tries, the next to be tried again first, and the "
            "sites that asked to be left alone. retry: make them due now; the next run of the source tries "
            "them. forget: delete them for good. Examples: scrapy failed list --source books --json; "
            "scrapy failed retry; scrapy failed forget 3 4"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("--source", help="those of one source")
        parser.add_argument("--all", action="store_true", help="with forget: delete every one")

    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """Open this host's ledger and do what was asked."""
        from crawler.memory.failed_requests import FailedRequests

        if opts.action == "forget" and not (opts.ids or opts.source or opts.all):
            message = "forget deletes for good; allowed: IDs, --source NAME, or --all"
            raise UsageError(message, print_help=False)
        with closing(FailedRequests(configuration.failed_requests_path)) as ledger:
            return ACTIONS[opts.action](ledger, opts)


def show(ledger: "FailedRequests", opts: argparse.Namespace) -> int:
    """Print the failed requests and the holds."""
    rows = [described(failed) for failed in ledger.requests(opts.source, opts.ids or None)]
    holds = [asdict(hold) | {"until": moment(hold.until)} for hold in ledger.holds(opts.source)]
    if opts.json:
        print_json({"requests": rows, "holds": holds})
        return FINE
    for row in rows:
        print(
            f"{row['id']:>8}  {row['source']}  {row['kind']}/{row['reason']} in {row['attempts']} runs since "
            f"{row['first_failed_at']}, next try {row['next_try_at']}\n          {row['url']}"
        )
    for hold in holds:
        print(f"{hold['source']}: {hold['site']} asked to be left alone until {hold['until']}")
    print(f"{len(rows)} failed requests")
    return FINE


def described(failed: "FailedRequest") -> dict[str, object]:
    """Return a request for people and programs: without its headers and body, which may hold secrets."""
    row = asdict(failed)
    del row["request"], row["key"]
    return row | {name: moment(row[name]) for name in _TIMES}


def retry(ledger: "FailedRequests", opts: argparse.Namespace) -> int:
    """Make requests due now."""
    return _report_number("due", ledger.retry(opts.source, opts.ids or None), opts)


def forget(ledger: "FailedRequests", opts: argparse.Namespace) -> int:
    """Delete requests."""
    return _report_number("forgotten", ledger.forget(opts.source, opts.ids or None), opts)


def _report_number(what: str, number: int, opts: argparse.Namespace) -> int:
    if opts.json:
        print_json({what: number})
    else:
        print(f"{number} failed requests are {what}")
    return FINDINGS if opts.ids and number < len(set(opts.ids)) else FINE


ACTIONS: dict[str, Action] = {"list": show, "retry": retry, "forget": forget}
