"""``scrapy spool``: look into what waits on the card, send it, check it, and treat the dead letters."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from scrapy.exceptions import UsageError

from crawler.command import FINDINGS, FINE, ActionCommand, moment, print_json, required_database
from crawler.exceptions import CrawlerError, SinkError
from crawler.host.processes import is_running
from crawler.records import line_fields

if TYPE_CHECKING:
    from crawler.account import SourceAccount
    from crawler.config import Configuration
    from crawler.delivery.spool import Spool

Action: TypeAlias = "Callable[[Configuration, Spool, argparse.Namespace], int]"


class Command(ActionCommand):
    """One action per thing an operator does with the spool."""

    actions = ("status", "list", "drain", "export", "verify", "dead", "replay")
    take_ids = ("dead", "replay")
    ids_are = "dead letters"

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "Show, send, check and export what waits on this host"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "status: the account of every source, and how full the spool is. list: the waiting batches. "
            "drain: send them to PostgreSQL now. export: print every waiting row as one JSON line. "
            "verify: check the file, the checksums and the books. dead: show the dead letters, or with "
            "--forget delete them. replay: queue dead letters again. "
            "Examples: scrapy spool status --json; scrapy spool dead --forget 3 4; scrapy spool replay"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("--forget", action="store_true", help="with dead: delete what is named")
        parser.add_argument("--all", action="store_true", help="with dead --forget: delete every one")

    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """Open this host's spool and do what was asked."""
        from crawler.delivery.spool import Spool

        with closing(Spool(configuration.spool_path, max_bytes=configuration.spool_max_bytes)) as spool:
            return ACTIONS[opts.action](configuration, spool, opts)


def show_status(configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Print the account of every source and the state of the spool."""
    from crawler.account import accounts
    from crawler.ledger import RunLedger
    from crawler.run import spool_job

    with closing(RunLedger(configuration.ledger_path)) as ledger:
        # Whoever notes a killed run in the ledger also tells PostgreSQL.
        ledger.close_orphans(is_running, partial(spool_job, spool))
        rows = accounts(ledger.books(), spool.accounts())
    status = spool.status()
    findings = [f"{row.source}: {finding}" for row in rows for finding in row.findings]
    if opts.json:
        print_json(
            {
                "database": configuration.database,
                "sources": [asdict(row) for row in rows],
                "spool": status._asdict() | {"fill": status.fill, "path": configuration.spool_path},
                "findings": findings,
            }
        )
        return FINDINGS if findings else FINE
    print_accounts(rows)
    age = (
        "" if status.oldest_age_seconds is None else f", the oldest for {duration(status.oldest_age_seconds)}"
    )
    print(
        f"spool {configuration.spool_path}: {status.items} items wait in {status.batches} batches{age}; "
        f"{status.dead} dead letters; {status.fill:.0%} of {status.max_bytes // 1024**2} MiB in use"
    )
    print(f"database {configuration.database}")
    for finding in findings:
        print(f"DOES NOT ADD UP: {finding}")
    return FINDINGS if findings else FINE


def print_accounts(rows: list["SourceAccount"]) -> None:
    """Print where every item of every source is, one line a source."""
    headings = ("pages", "scraped", "stored", "unchanged", "spooled", "dead", "dropped", "runs")
    width = max([len("source"), *(len(row.source) for row in rows)])
    print(f"{'source':{width}}" + "".join(f"{heading:>10}" for heading in headings) + "  account")
    for row in rows:
        figures = "".join(f"{getattr(row, heading):>10}" for heading in headings)
        verdict = "adds up" if row.adds_up else "DOES NOT ADD UP"
        unended = ", ".join(
            f"{number} {name}"
            for number, name in ((row.running, "running"), (row.killed, "killed"))
            if number
        )
        print(f"{row.source:{width}}{figures}  {verdict}{f' ({unended})' if unended else ''}")


def show_batches(_configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Print the waiting batches, oldest first."""
    rows = [
        {
            "id": batch.id,
            "table": batch.stream.table,
            "source": batch.stream.source,
            "items": batch.items,
            "bytes": len(batch.compressed),
            "spooled_at": moment(batch.spooled_at),
            "intact": batch.lines is not None,
        }
        for batch in spool.batches()
    ]
    if opts.json:
        print_json(rows)
        return FINE
    for row in rows:
        print(
            f"{row['id']:>8}  {row['spooled_at']}  {row['table']:<14} {row['source']:<20} "
            f"{row['items']:>6} items {row['bytes']:>9} bytes{'' if row['intact'] else '  DAMAGED'}"
        )
    print(f"{len(rows)} batches wait")
    return FINE


def drain(configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Send every waiting batch now, as fast as PostgreSQL takes them."""
    from crawler.delivery.courier import Drainer
    from crawler.delivery.postgres import PostgresSink
    from crawler.delivery.spool import DrainLock

    lock = DrainLock(configuration.spool_path)
    if not lock.acquire():
        raise CrawlerError("another process drains this spool: let it, or stop it first")
    sink = PostgresSink(
        required_database(configuration), deadline_seconds=configuration.call_deadline_seconds
    )
    drainer = Drainer(spool, lock)
    before = spool.status()
    error: SinkError | None = None
    try:
        while drainer.step(sink):
            if not opts.json and sys.stderr.isatty():
                sys.stderr.write(f"\r{spool.status().items} items wait ")
    except SinkError as failure:
        error = failure
    finally:
        drainer.close()
        sink.close()
    after = spool.status()
    report = {
        "sent": before.items - after.items,
        "dead": after.dead - before.dead,
        "waiting": after.items,
        "error": None if error is None else str(error),
    }
    if opts.json:
        print_json(report)
    else:
        print(f"{report['sent']} items sent, {report['dead']} of them dead; {report['waiting']} wait")
        if error is not None:
            print(f"stopped: {error}")
    return FINDINGS if after.items else FINE


def export(_configuration: "Configuration", spool: "Spool", _opts: argparse.Namespace) -> int:
    """Print every waiting row as a JSON object, one a line; the spool keeps them."""
    damaged = 0
    for batch in spool.batches():
        damaged += batch.lines is None
        for line in batch.lines or ():
            row = dict(zip(batch.columns.split(","), line_fields(line), strict=True))
            print_json({"table": batch.stream.table} | row)
    if damaged:
        sys.stderr.write(f"{damaged} damaged batches were left out: see `scrapy spool verify`\n")
    return FINDINGS if damaged else FINE


def verify(_configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Check the file, every checksum and the books."""
    findings = spool.verify()
    if opts.json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(finding)
        print(f"{len(findings)} findings" if findings else "the spool is intact and its books add up")
    return FINDINGS if findings else FINE


def dead(_configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Print the dead letters, or delete those named."""
    if opts.forget:
        if bool(opts.ids) == opts.all:
            message = "--forget deletes for good; allowed: IDs of letters, or --all"
            raise UsageError(message, print_help=False)
        return _report_number("forgotten", spool.forget(opts.ids or None), opts)
    rows: list[dict[str, Any]] = []
    for letter_id, died_at, _columns, letter in spool.dead_letters():
        if opts.ids and letter_id not in opts.ids:
            continue
        rows.append(
            {
                "id": letter_id,
                "died_at": moment(died_at),
                "table": letter.stream.table,
                "source": letter.stream.source,
                "key": letter.key,
                "code": letter.code,
                "reason": letter.reason,
                "replayable": letter.replayable,
                "content": letter.payload.decode(errors="replace"),
            }
        )
    if opts.json:
        print_json(rows)
        return FINDINGS if rows else FINE
    for row in rows:
        print(
            f"{row['id']:>8}  {row['died_at']}  {row['source']}  {row['key']}\n"
            f"          {row['code']}: {row['reason']}"
            + ("" if row["replayable"] else "\n          has no row form: cannot be replayed")
        )
        if opts.ids:
            print(f"          {row['content']}")
    print(f"{len(rows)} dead letters")
    return FINDINGS if rows else FINE


def replay(_configuration: "Configuration", spool: "Spool", opts: argparse.Namespace) -> int:
    """Queue dead letters again; the next drain sends them."""
    return _report_number("replayed", spool.replay(opts.ids or None), opts)


def _report_number(what: str, number: int, opts: argparse.Namespace) -> int:
    if opts.json:
        print_json({what: number})
    else:
        print(f"{number} dead letters {what}")
    return FINE if number or not opts.ids else FINDINGS


def duration(seconds: float) -> str:
    """Given seconds, return them for people."""
    days, rest = divmod(int(seconds), 86400)
    return f"{days} d {time.strftime('%H:%M:%S', time.gmtime(rest))}"


ACTIONS: dict[str, Action] = {
    "status": show_status,
    "list": show_batches,
    "drain": drain,
    "export": export,
    "verify": verify,
    "dead": dead,
    "replay": replay,
}
