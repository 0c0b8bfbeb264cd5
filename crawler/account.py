"""The proof that nothing went missing: scraped = stored + unchanged + spooled + dead-letter + dropped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crawler.delivery.spool import Account
from crawler.items import TABLE
from crawler.ledger import Book, Counts


@dataclass(frozen=True, slots=True)
class SourceAccount:
    """Where every item a source ever yielded on this host is now, and what does not add up."""

    source: str
    runs: int
    running: int
    killed: int
    pages: int
    scraped: int
    stored: int
    unchanged: int
    spooled: int
    dead: int
    dropped: int
    lost: int
    findings: tuple[str, ...]

    @property
    def adds_up(self) -> bool:
        """True if every item scraped is in exactly one place."""
        return not self.findings


def accounts(books: Mapping[str, Book], spooled: Iterable[Account]) -> list[SourceAccount]:
    """Given the run ledger's books and the spool's, return each source's account.

    The two are kept apart: crawls count what they scraped in the ledger, the spool counts what came
    in and went out. A killed run left no count of what PostgreSQL took from it; what it spooled is
    known, and counts as scraped.
    """
    by_source = {account.stream.source: account for account in spooled if account.stream.table == TABLE}
    return [
        _account(source, books.get(source), by_source.get(source))
        for source in sorted(books.keys() | by_source.keys())
    ]


def _account(source: str, book: Book | None, spool: Account | None) -> SourceAccount:
    counts = book.counts if book else Counts()
    runs, running, killed = (book.runs, book.running, book.killed) if book else (0, 0, 0)
    findings = []
    from_unfinished = 0
    stored, unchanged, waiting, dead = counts.stored, counts.unchanged, 0, 0
    if spool is not None:
        from_unfinished = (spool.spooled - counts.spooled) + (spool.buried - counts.dead)
        stored += spool.stored
        unchanged += spool.unchanged
        waiting = spool.waiting
        dead = spool.dead + spool.forgotten
        if not spool.adds_up:
            findings.append("the spool's own books do not add up: run `scrapy spool verify`")
    elif counts.spooled or counts.dead:
        findings.append(
            f"{counts.spooled + counts.dead} items went to a spool that is not here: was the file moved?"
        )
    if from_unfinished < 0:
        findings.append(
            f"the spool knows of {-from_unfinished} items fewer than the crawls gave it: "
            "look for a file set aside as damaged beside it"
        )
    elif from_unfinished > 0 and not (running or killed):
        findings.append(f"the spool holds {from_unfinished} items that no run of the ledger gave it")
    scraped = counts.scraped + max(0, from_unfinished)
    missing = scraped - (stored + unchanged + waiting + dead + counts.dropped)
    if missing:
        findings.append(
            f"{missing} of {scraped} items are in none of the places"
            + (
                f"; {counts.lost} of them were in RAM when a run ended and will be fetched again"
                if counts.lost
                else ""
            )
        )
    return SourceAccount(
        source,
        runs,
        running,
        killed,
        counts.pages,
        scraped,
        stored,
        unchanged,
        waiting,
        dead,
        counts.dropped,
        counts.lost,
        tuple(findings),
    )
