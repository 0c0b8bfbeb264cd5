"""The errors of this project. Each says who raises it and what its reader should do."""

from collections.abc import Sequence


class CrawlerError(Exception):
    """Root of every error raised on purpose by this project."""


class ConfigurationError(CrawlerError):
    """Raised by ``crawler.config`` at start, with every wrong setting in one report."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {number}. {text}" for number, text in enumerate(problems, 1))
        super().__init__(f"{len(problems)} wrong setting(s); nothing was started:\n{lines}")


class ItemRefused(CrawlerError):
    """Raised by ``crawler.items`` for an item that has no row form. It becomes a dead letter."""

    code = "refused"
    """What the dead letter says instead of a SQLSTATE."""


class ItemInvalid(ItemRefused):
    """Raised by ``crawler.validation`` for an item that breaks its own types. It becomes a dead letter.

    ``empty`` names the fields without a value, wrong or not.
    """

    code = "invalid"

    def __init__(self, message: str, empty: Sequence[str] = ()) -> None:
        self.empty = empty
        super().__init__(message)


class CardError(CrawlerError):
    """Raised by ``crawler.durable`` when the card did not take or give what it was asked for.

    What should have been written is still the caller's, who tries again.
    """


class CardFull(CardError):
    """Raised when something does not fit under a file's cap. Crawls pause; nothing is dropped."""


class SinkError(CrawlerError):
    """Raised by ``crawler.delivery.postgres`` when a batch is not known to be committed.

    ``sqlstate`` is PostgreSQL's five characters, or None when the connection ended first.
    """

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class SinkUnavailable(SinkError):
    """The server is away, full, busy or silent. The same batch may succeed later."""


class SinkTimeout(SinkUnavailable):
    """The statement ran out of time (57014). A smaller batch may succeed where this one did not."""


class SinkMisconfigured(SinkError):
    """The server refuses us until its operator acts: schema, permission, database or login."""


class RowRefused(SinkError):
    """At least one row of the batch can never be stored as it is (SQLSTATE 22, 23 or 54)."""


class SchemaError(CrawlerError):
    """Raised by ``scrapy initdb`` when the database's schema is not one this version can use."""


class CheckoutError(CrawlerError):
    """Raised by ``crawler.authoring.checkout`` where the project's source is needed and there is none."""


class CaseError(CrawlerError):
    """Raised by ``crawler.authoring.golden`` for a saved page that cannot be read, parsed or written."""


class ScaffoldError(CrawlerError):
    """Raised by ``scrapy genspider`` for what it cannot make a spider of. Nothing was written."""


class PageUnreachable(CrawlerError):
    """Raised by ``crawler.authoring.one_page`` when a site did not answer: it may, another time."""


class PageRefused(CrawlerError):
    """Raised by ``crawler.authoring.one_page`` when a site's robots.txt or its answer says no."""


class StoreFailed(CrawlerError):
    """Raised by ``crawler.memory.page_store`` when its file is full, locked, silent or out of reach.

    What the file holds stays good: a later run can use it.
    """


class StoreDamaged(StoreFailed):
    """The file's content is wrong. It is only worth another fetch of each page: an empty one replaces it."""


class StoreTaken(StoreFailed):
    """Another process of this host has the file."""


class RequestRefused(CrawlerError):
    """Raised by ``crawler.request_json`` for a request without a JSON form. No later run can make it."""


class RequestLost(CrawlerError):
    """Raised by ``crawler.request_json`` for a kept request that cannot be made again.

    Its spider has lost the method it was for, or the card has changed its text.
    """
