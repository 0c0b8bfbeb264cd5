"""The one shape in which data travels: a line of PostgreSQL COPY text, and the stream it is of."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from crawler.tickets import Ticket


class Stream(NamedTuple):
    """What the lines of one batch have in common: the table they are rows of, and their source."""

    table: str
    source: str


class Record(NamedTuple):
    """One row on its way: ``line`` is COPY text in the table's column order, newline included.

    A tuple, because one is made of every item: a frozen dataclass takes twice as long to make.
    """

    stream: Stream
    key: str
    line: bytes
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One row that can never be stored as it is.

    ``code`` is the SQLSTATE, or a word of ours when it never had a row form. ``payload`` is the COPY
    line when ``replayable``, else a bounded description of the item in UTF-8.
    """

    stream: Stream
    key: str
    code: str
    reason: str
    payload: bytes
    replayable: bool
    ticket: Ticket | None = None


def copy_text(text: str) -> bytes:
    """Given any text without NUL or lone surrogates, return it as one field of COPY text format."""
    if "\\" in text or "\n" in text or "\r" in text or "\t" in text:
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return text.encode()


def copy_json(json: bytes) -> bytes:
    """Given JSON bytes, return one field. JSON escapes control characters: only backslashes double."""
    return json.replace(b"\\", b"\\\\")


def copy_line(fields: Iterable[str | bytes | int | None]) -> bytes:
    """Given a row's fields (JSON as bytes, NULL as None), return its COPY line."""
    return b"\t".join(map(_copy_field, fields)) + b"\n"


def _copy_field(value: str | bytes | int | None) -> bytes:
    if value is None:
        return b"\\N"
    if isinstance(value, bytes):
        return copy_json(value)
    return copy_text(str(value))


def split_lines(payload: bytes) -> list[bytes]:
    """Given joined COPY lines, return them one by one. A line break inside a field is escaped."""
    return [line + b"\n" for line in payload.split(b"\n")[:-1]]


_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


def line_fields(line: bytes) -> list[str | None]:
    """Given a COPY line, return its fields as text, NULL as None: the inverse of ``copy_line``."""
    fields = line.decode().rstrip("\n").split("\t")
    return [
        None if field == "\\N" else re.sub(r"\\(.)", lambda match: _ESCAPES[match[1]], field)
        for field in fields
    ]


def hash128(*parts: bytes) -> bytes:
    """Return 16 bytes of BLAKE2b over the parts, each preceded by its length so that none can blur."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
