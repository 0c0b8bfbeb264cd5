"""From what a spider yields to the row PostgreSQL stores, with a stated form for what JSON lacks.

=====================================  =====================================================
a spider yields                        the row holds
=====================================  =====================================================
str, int, float, bool, None            the same in JSON
dict, list, tuple                      object, array
dataclass, Item, attrs, pydantic       object of its fields
datetime, date, time                   ISO 8601 text, with its offset if it has one
Decimal, int beyond 64 bits            number, exact
UUID, Enum                             text, the member's value
bytes                                  Base64 text
set, frozenset                         array, sorted by JSON text
NaN, Infinity                          null
NUL, lone surrogate in a text          U+FFFD; counted as mended
object key that is not text            its text
everything else                        dead letter
=====================================  =====================================================

Dead letters, too: what is not an item, has no key, has a NUL or lone surrogate in its key, is nested
deeper than the encoder follows (253 levels), or whose JSON is longer than ``DELIVERY_ITEM_MAX_BYTES``.
"""

import base64
import reprlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from crawler.exceptions import ItemRefused
from crawler.fields import fields_of
from crawler.records import DeadLetter, Record, Stream, copy_json, copy_text, hash128
from crawler.tickets import Ticket
from crawler.validation import a_type, with_article

TABLE = "scraped_data"
REPLACEMENT = "\ufffd"
_DESCRIPTION_CHARACTERS = 64 * 1024
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_NO_TIME = timedelta(0)
_SECOND = timedelta(seconds=1)
_KEY_TYPES = (str, int, Decimal, UUID, date)


def utc_now() -> datetime:
    """Return the wall clock's time in UTC."""
    return datetime.now(UTC)


class ItemEncoder:
    """Turns the items of one run into records. Not thread safe: reactor thread only."""

    def __init__(
        self,
        *,
        source: str,
        key: str | tuple[str, ...],
        keep_every: bool,
        run_id: str,
        host: str,
        max_bytes: int,
        wall_clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Given what the rows of a run have in common, return an encoder of its items."""
        self.stream = Stream(TABLE, source)
        self.mended = 0
        self._key_fields = (key,) if isinstance(key, str) else tuple(key)
        self._max_bytes = max_bytes
        self._wall_clock = wall_clock
        self._last_moment = self._second = datetime.min.replace(tzinfo=UTC)
        self._second_text = b""
        self._source_field = copy_text(source)
        self._source_bytes = source.encode()
        self._run_fields = b"\t".join((copy_text(run_id), copy_text(host), b"t\n" if keep_every else b"f\n"))

    def encode(self, item: Any, page_url: str | None = None, ticket: Ticket | None = None) -> Record:
        """Given an item and the address of its page, return its record.

        Raise ItemRefused, whose text names the field and what it should be, if it has no row form.
        """
        fields = fields_of(item)
        if fields is None:
            raise ItemRefused(
                f"{a_type(type(item))} is not an item; yield a dataclass, a dict or a scrapy.Item"
            )
        key = self._key_of(fields)
        data = self._json_of(fields)
        if len(data) > self._max_bytes:
            raise ItemRefused(
                f"the item is {len(data)} bytes of JSON; at most DELIVERY_ITEM_MAX_BYTES="
                f"{self._max_bytes} are stored"
            )
        url = fields.get("url")
        url = url if isinstance(url, str) else page_url
        key_bytes = key.encode()
        line = b"\t".join(
            (
                self._source_field,
                copy_text(key),
                b"\\N" if url is None else copy_text(mended_text(url)),
                copy_json(data),
                hash128(self._source_bytes, key_bytes).hex().encode(),
                hash128(data).hex().encode(),
                self._moment(),
                self._run_fields,
            )
        )
        return Record(self.stream, key, line, ticket)

    def dead_letter(self, item: Any, reason: ItemRefused, ticket: Ticket | None = None) -> DeadLetter:
        """Given an item that was refused and why, return the letter that keeps what can be kept of it."""
        key = ""
        fields = fields_of(item)
        if fields is not None:
            values = [fields.get(name) for name in self._key_fields]
            key = mended_text(" ".join(_short_text(value) for value in values if value is not None))
        payload = mended_text(_description(item)).encode()
        return DeadLetter(self.stream, key, reason.code, str(reason), payload, False, ticket)

    def _moment(self) -> bytes:
        """Return now in ISO 8601, but never the same moment twice: two versions must not share a time.

        A clock set back by more than a second is believed: a Pi's is wrong until it has met the network.
        """
        now = self._wall_clock()
        if _NO_TIME <= self._last_moment - now < _SECOND:
            now = self._last_moment + timedelta(microseconds=1)
        self._last_moment = now
        # isoformat() costs as much as a hash, and within a second only the microseconds are new.
        if not _NO_TIME <= now - self._second < _SECOND:
            self._second = now.replace(microsecond=0)
            self._second_text = self._second.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        return b"%b.%06d+00:00" % (self._second_text, now.microsecond)

    def _key_of(self, fields: Mapping[str, Any]) -> str:
        if len(self._key_fields) == 1:
            (name,) = self._key_fields
            return self._key_value(name, fields.get(name))
        values = [self._key_value(name, fields.get(name)) for name in self._key_fields]
        return orjson.dumps(values).decode()

    def _key_value(self, name: str, value: Any) -> str:
        if value is None or value == "":
            raise ItemRefused(
                f"the key field {name!r} is missing; every item needs it, it names the thing in its source"
            )
        if isinstance(value, bool) or not isinstance(value, _KEY_TYPES):
            raise ItemRefused(
                f"the key field {name!r} is {a_type(type(value))}; allowed: text, a number or a date"
            )
        if isinstance(value, int) and not _fits_64_bits(value):
            raise ItemRefused(f"the key field {name!r} is an integer of more than 64 bits; allowed: text")
        text = str(value)
        if mended_text(text) != text:
            raise ItemRefused(f"the key field {name!r} holds a NUL or a lone surrogate: {text[:200]!r}")
        return text

    def _json_of(self, fields: Mapping[str, Any]) -> bytes:
        try:
            data = orjson.dumps(fields, represented, _OPTIONS)
        except orjson.JSONEncodeError:
            return self._json_the_long_way(fields)
        # NUL is rare and cheap to look for; a doubled backslash before it is told apart the long way.
        return self._json_the_long_way(fields) if b"\\u0000" in data else data

    def _json_the_long_way(self, fields: Mapping[str, Any]) -> bytes:
        """For what orjson refuses as it is: huge integers, lone surrogates, keys that are not text."""
        texts_mended = 0

        def mend(text: str) -> str:
            nonlocal texts_mended
            mended = mended_text(text)
            texts_mended += mended != text
            return mended

        try:
            data = orjson.dumps(_plain(fields, mend), represented, _OPTIONS)
        except (RecursionError, ValueError, TypeError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, ItemRefused) else error
            raise ItemRefused(f"the item has no JSON form: {cause}") from error
        self.mended += bool(texts_mended)
        return data


def mended_text(text: str) -> str:
    """Return the text with U+FFFD for what PostgreSQL cannot hold: NUL and lone surrogates.

    As the WHATWG standards do: HTML for NUL, Encoding for surrogates.
    """
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def represented(value: Any) -> Any:
    """Given what orjson does not know, return what it does, or raise ItemRefused."""
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else None
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return sorted(value, key=_json_text)
    fields = fields_of(value)
    if fields is not None:
        return fields
    raise ItemRefused(
        f"{with_article(f'{type(value).__module__}.{type(value).__qualname__}')} has no JSON form; "
        "extract text or numbers in the spider"
    )


def _plain(value: Any, mend: Callable[[str], str]) -> Any:
    """Given any value, return it with its texts mended, and in forms that orjson takes."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, int) and not isinstance(value, bool | Enum):
        return value if _fits_64_bits(value) else orjson.Fragment(str(value))
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {mend(str(name)): _plain(inner, mend) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        inner = represented(value) if isinstance(value, set | frozenset) else value
        return [_plain(each, mend) for each in inner]
    fields = fields_of(value)
    return value if fields is None else _plain(fields, mend)


def _fits_64_bits(value: int) -> bool:
    return -(2**63) <= value < 2**64


def _json_text(value: Any) -> bytes:
    return orjson.dumps(_plain(value, mended_text), represented, _OPTIONS)


class _BoundedRepr(reprlib.Repr):
    """``reprlib`` with a bound for the one built-in type that refuses to be shown."""

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits of an integer, or how many bits it has where Python refuses the digits."""
        return str(x) if x.bit_length() < 4096 else f"<integer of {x.bit_length()} bits>"


def _short_text(value: Any) -> str:
    return value[:200] if isinstance(value, str) else _BoundedRepr().repr(value)


def _description(item: Any) -> str:
    """Return a bounded text of an item that has no JSON form: all that can be kept of it."""
    bounded = _BoundedRepr()
    bounded.maxlevel = 20
    bounded.maxdict = bounded.maxlist = bounded.maxtuple = bounded.maxset = 200
    bounded.maxstring = bounded.maxother = bounded.maxlong = 4096
    fields = fields_of(item)
    shown = item if fields is None else dict(fields)
    return bounded.repr(shown)[:_DESCRIPTION_CHARACTERS]
