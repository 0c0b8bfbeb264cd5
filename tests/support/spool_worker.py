"""A process of its own that works on a spool until it is done, or dies. Run with ``python -m``.

Each thing it does it says before and after, one JSON line each, so that whoever finds the spool later knows
what has to be in it: tests/support/spool_oracle.py.
"""

import argparse
import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from crawler import sqlite
from crawler.delivery.spool import Settlement, Spool
from crawler.delivery.tables import SCRAPED_DATA
from crawler.exceptions import CardError
from crawler.records import DeadLetter, Stream, copy_line

if TYPE_CHECKING:
    from tests.support.spool_model import SpoolModel

MOST_ITEMS = 40
# A card that has failed for good is not asked more often than that.
MOST_FAILURES = 3
_OPENINGS = 3

Say = Callable[[str, object], None]


class Operation(NamedTuple):
    """One thing to do to a spool: append, bury, settle, replay or forget. No ``ids`` at all: every one."""

    kind: str
    name: str = ""
    first: int = 0
    items: int = 0
    ids: tuple[int, ...] | None = ()
    refused: int = 0


def lines_of(name: str, first: int, items: int) -> list[bytes]:
    """Return the lines of things that nobody else has, each of half a kilobyte, a quarter when compressed."""
    return [
        copy_line((name, f"key-{number}", hashlib.shake_128(f"{name} {number}".encode()).hexdigest(250)))
        for number in range(first, first + items)
    ]


def letter(stream: Stream, line: bytes) -> DeadLetter:
    """Return the letter of a line that is refused; about every fourth cannot be replayed."""
    return DeadLetter(stream, "", "22P02", "made to die", line, replayable=line[-2] not in b"048c")


def perform(operation: Operation, spool: "Spool | SpoolModel") -> int | None:
    """Do it, to a spool or to the model of one, and return what that returned.

    Raise KeyError if it is about a batch that is not there.
    """
    kind, name, first, items, ids, _refused = operation
    stream = Stream(SCRAPED_DATA.name, name)
    columns = SCRAPED_DATA.column_names
    match kind:
        case "append":
            return spool.append(stream, columns, lines_of(name, first, items))
        case "bury":
            return spool.bury(columns, [letter(stream, line) for line in lines_of(name, first, items)])
        case "settle":
            return spool.settle(_settlements(operation, spool))
        case "replay":
            return spool.replay(ids)
        case "forget":
            return spool.forget(ids)
    raise ValueError(f"{kind}: no such operation; known: append, bury, settle, replay, forget")


def _settlements(operation: Operation, spool: "Spool | SpoolModel") -> list[Settlement]:
    wanted = operation.ids or ()
    newest = max(wanted, default=0)
    known = {batch.id: batch for batch in takewhile(lambda batch: batch.id <= newest, spool.batches())}
    settlements = []
    for batch in (known[number] for number in wanted):
        lines = batch.lines or []
        dead = [letter(batch.stream, line) for line in lines[: operation.refused]]
        good = len(lines) - len(dead)
        settlements.append(Settlement(batch, stored=good - good // 3, unchanged=good // 3, dead=dead))
    return settlements


def chosen(
    chance: random.Random, kind: str, spool: Spool, options: argparse.Namespace, first: int
) -> Operation | None:
    """Return something of this kind to do now, or None if there is nothing.

    "refuse" is to settle batches of which PostgreSQL has refused a row or two.
    """
    match kind:
        case "append":
            return Operation("append", options.name, first, options.items or chance.randint(1, MOST_ITEMS))
        case "bury":
            return Operation("bury", options.name, first, chance.randint(1, 3))
        case "settle" | "refuse":
            waiting = [batch.id for batch in islice(spool.batches(), chance.randint(1, 6))]
            refused = chance.randint(1, 2) if kind == "refuse" else 0
            return Operation("settle", ids=tuple(waiting), refused=refused) if waiting else None
        case _:
            dead = [number for number, _, _, _ in islice(spool.dead_letters(), chance.randint(1, 4))]
            return Operation(kind, ids=tuple(dead)) if dead else None


def work(spool: Spool, options: argparse.Namespace, say: Say) -> None:
    """Do so many things, or go on until killed."""
    chance = random.Random(options.seed)
    first, number, failures = options.first, 0, 0
    while options.operations is None or number < options.operations:
        try:
            operation = chosen(chance, chance.choice(options.does), spool, options, first)
        except CardError as error:
            say("unread", f"{type(error).__name__}: {error}")
            failures += 1
        else:
            if operation is None:
                time.sleep(0.0005)
            else:
                failures += not attempt(operation, spool, options, say)
                first += operation.items
        number += 1
        if failures >= MOST_FAILURES:
            return


def attempt(operation: Operation, spool: Spool, options: argparse.Namespace, say: Say) -> bool:
    """Do one thing and say so; return False if the card failed."""
    say("begins", operation)
    if options.says == "before":
        say("done", None)
    try:
        result = perform(operation, spool)
    except CardError as error:
        # Whoever takes an error for a success says something wrong.
        said = ("done", None) if options.swallows else ("failed", f"{type(error).__name__}: {error}")
        say(*said)
        return False
    if options.says == "after":
        say("done", result)
    return True


def opened(options: argparse.Namespace, say: Say) -> Spool | None:
    """Open the spool, or say why it cannot be opened and try again, but not for ever."""
    for _ in range(_OPENINGS):
        try:
            return Spool(options.folder / "spool.sqlite", max_bytes=options.max_bytes)
        except CardError as error:
            say("unopened", f"{type(error).__name__}: {error}")
    return None


def arguments() -> argparse.Namespace:
    """Return what to do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="where the spool is")
    parser.add_argument("--name", default="shop", help="the source of what is appended")
    parser.add_argument(
        "--does", type=lambda text: text.split(","), default=["append"], help="of which to choose"
    )
    parser.add_argument("--operations", type=int, help="how many (default: until it is killed)")
    parser.add_argument("--items", type=int, help="of each batch (default: a few)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first item")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-bytes", type=int, default=1024**2)
    parser.add_argument("--says", choices=("after", "before"), default="after", help="when it says 'done'")
    parser.add_argument("--swallows", action="store_true", help="takes an error of the card for a success")
    parser.add_argument("--pragmas", type=json.loads, default={}, help="other ones than the product's")
    parser.add_argument("--witness", type=Path, help="the file to say things to (default: standard output)")
    return parser.parse_args()


def main() -> None:
    """Open the spool, work, close it."""
    options = arguments()
    sqlite.DURABLE_PRAGMAS.update(options.pragmas)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = 1 if options.witness is None else os.open(options.witness, flags, 0o600)

    def say(word: str, about: object) -> None:
        os.write(descriptor, json.dumps([word, about]).encode() + b"\n")

    spool = opened(options, say)
    if spool is not None:
        say("opened", None)
        with closing(spool):
            work(spool, options, say)
    say("ended", None)


if __name__ == "__main__":
    main()
