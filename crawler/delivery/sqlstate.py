"""What PostgreSQL's five characters mean for a batch.

Classified by SQLSTATE, never by exception class: psycopg2's OperationalError covers a lost
connection, a full disk (53100) and a row that can never be stored (54000) alike.
Codes: PostgreSQL manual, appendix A.
"""

import re
from enum import Enum


class Meaning(Enum):
    """What a failed statement says about the batch it carried."""

    ROW_REFUSED = "at least one row can never be stored as it is"
    OPERATOR_NEEDED = "the server refuses until its operator acts"
    TIMED_OUT = "the statement took too long; a smaller one may not"
    UNAVAILABLE = "the server is away, full, busy or silent"


_ROW_CLASSES = ("22", "23", "54")
_OPERATOR_CLASSES = ("0A", "21", "28", "3D", "3F", "42", "P0")
_QUERY_CANCELED = "57014"

_REMEDIES = {
    "42P01": "a table is missing: run `scrapy initdb`",
    "42703": "a column is missing: run `scrapy initdb`, or undo the change made by hand",
    "42P07": "a table of that name was not made by `scrapy initdb`: use a database of its own",
    "42P10": "an index is missing: run `scrapy initdb`, or undo the change made by hand",
    "42501": "a permission is missing: as the database's owner run "
    "GRANT CONNECT, TEMPORARY ON DATABASE and GRANT SELECT, INSERT, UPDATE ON ALL TABLES",
    "28P01": "the password is wrong: correct DATABASE_URL or DATABASE_URL_FILE",
    "28000": "the login is refused: check DATABASE_URL and pg_hba.conf on the server",
    "3D000": "the database does not exist: create it with createdb, then run `scrapy initdb`",
    "3F000": "the schema does not exist: check search_path, then run `scrapy initdb`",
}

# A refused login has a SQLSTATE, but libpq hands out its text only. A server that speaks another
# language than English is not understood; then the batch waits all the same, without the remedy.
_REFUSED_LOGINS = {
    r"password authentication failed|no password supplied": "28P01",
    r"no pg_hba\.conf entry|role .* does not exist|is not permitted to log in|authentication failed": "28000",
    r"database .* does not exist": "3D000",
    r"permission denied for database": "42501",
}


def login_sqlstate(message: str) -> str | None:
    """Given why a connection failed, return the SQLSTATE if the server refused the login, else None."""
    return next((code for text, code in _REFUSED_LOGINS.items() if re.search(text, message)), None)


def meaning_of(sqlstate: str | None) -> Meaning:
    """Given a SQLSTATE, or None when the connection ended without one, return what it means.

    An unknown code counts as UNAVAILABLE: the batch is kept and tried again.
    """
    if sqlstate is None:
        return Meaning.UNAVAILABLE
    if sqlstate == _QUERY_CANCELED:
        return Meaning.TIMED_OUT
    if sqlstate.startswith(_ROW_CLASSES):
        return Meaning.ROW_REFUSED
    if sqlstate.startswith(_OPERATOR_CLASSES):
        return Meaning.OPERATOR_NEEDED
    return Meaning.UNAVAILABLE


def remedy_for(sqlstate: str | None) -> str:
    """Given a SQLSTATE of an operator's case, return what the operator should do."""
    return _REMEDIES.get(sqlstate or "", "the server's own log says more; then run `scrapy spool drain`")
