"""A process of its own that keeps a run ledger and says after each entry what is in it.

Run with ``python -m``. Arguments: the ledger, the file to say things to, and how many runs. Of each source
the newest three are kept one by one.
"""

import json
import os
import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from crawler import ledger
from crawler.ledger import Counts, Run, RunLedger


def books_of(books: RunLedger) -> str:
    """Return everything a ledger knows, as one line of JSON."""
    sums = {source: asdict(book) for source, book in books.books().items()}
    return json.dumps([[asdict(run) for run in books.runs()], sums])


def main() -> None:
    """Enter the beginning and the end of some runs."""
    path, witness, runs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    make_small()
    descriptor = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with closing(RunLedger(path, wall_clock=lambda: 0.0)) as books:
        for number in range(runs):
            run = Run(f"run-{number}", "news" if number % 3 else "shop", "pi", "1 1", float(number))
            books.start(run)
            os.write(descriptor, books_of(books).encode() + b"\n")
            ended = replace(run, ended_at=number + 0.5, status="finished", counts=Counts(scraped=7, stored=7))
            books.end(ended)
            os.write(descriptor, books_of(books).encode() + b"\n")


def make_small() -> None:
    """Let ledgers of this process be small ones that fold soon."""
    ledger.KEPT_RUNS_PER_SOURCE = 3
    ledger._MAX_BYTES = 1024**2


if __name__ == "__main__":
    main()
