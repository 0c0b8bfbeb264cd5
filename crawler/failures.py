"""What kind of failure a response or an exception is: does the site not want us, or does it not work?

``blocked`` and ``broken`` may pass and are tried again; ``gone``, ``forbidden`` and ``unusable`` are final.
"""

import re
import zlib
from collections.abc import Iterator
from enum import Enum, StrEnum

from OpenSSL.SSL import Error as TLSError
from scrapy import exceptions as scrapy_errors
from scrapy.http import Headers
from service_identity import VerificationError
from twisted.internet import error as twisted_errors


class Kind(StrEnum):
    """The classes of failure. An operator does something else about each."""

    BLOCKED = "blocked"
    """The site does not want this crawler, or not now: be slower, or ask the site's owner."""
    BROKEN = "broken"
    """The site, or the way to it, does not work: it may by itself."""
    GONE = "gone"
    """There is no such page any more. Final."""
    FORBIDDEN = "forbidden"
    """A rule says no: robots.txt, a login, the law. Final."""
    UNUSABLE = "unusable"
    """What is there is not for us: too large, another protocol, a status nobody handles. Final."""
    UNFINISHED = "unfinished"
    """The page came, but its callback raised or its items were lost: the spider is at fault."""


FINAL = frozenset({Kind.GONE, Kind.FORBIDDEN, Kind.UNUSABLE})


class Failure(Enum):
    """Every failure there is, as its kind and its reason."""

    REFUSED = (Kind.BLOCKED, "refused")
    TOO_MANY_REQUESTS = (Kind.BLOCKED, "too_many_requests")
    CHALLENGED = (Kind.BLOCKED, "challenged")
    TURNED_AWAY = (Kind.BLOCKED, "turned_away")
    HELD_BACK = (Kind.BLOCKED, "held_back")
    SERVER_ERROR = (Kind.BROKEN, "server_error")
    UNAVAILABLE = (Kind.BROKEN, "unavailable")
    TIMEOUT = (Kind.BROKEN, "timeout")
    DNS = (Kind.BROKEN, "dns")
    CONNECTION_REFUSED = (Kind.BROKEN, "connection_refused")
    CONNECTION_LOST = (Kind.BROKEN, "connection_lost")
    UNREACHABLE = (Kind.BROKEN, "unreachable")
    TLS = (Kind.BROKEN, "tls")
    INCOMPLETE = (Kind.BROKEN, "incomplete")
    GARBLED = (Kind.BROKEN, "garbled")
    REDIRECTS = (Kind.BROKEN, "redirects")
    UNKNOWN = (Kind.BROKEN, "unknown")
    NOT_FOUND = (Kind.GONE, "not_found")
    REMOVED = (Kind.GONE, "removed")
    ROBOTS = (Kind.FORBIDDEN, "robots")
    LOGIN = (Kind.FORBIDDEN, "login")
    PAYMENT = (Kind.FORBIDDEN, "payment")
    LEGAL = (Kind.FORBIDDEN, "legal")
    TOO_LARGE = (Kind.UNUSABLE, "too_large")
    SCHEME = (Kind.UNUSABLE, "scheme")
    STATUS = (Kind.UNUSABLE, "status")
    UNFINISHED = (Kind.UNFINISHED, "page")

    @property
    def kind(self) -> Kind:
        """Return its class."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """Return the finer reason, one of a closed set."""
        return self.value[1]

    @property
    def is_final(self) -> bool:
        """Return True if asking again would be of no use."""
        return self.kind in FINAL


# RFC 9110 15.5 and 15.6; 429: RFC 6585 4; 451: RFC 7725. 522 and 524 are Cloudflare's for an origin
# that does not answer; 999 is what LinkedIn sends to crawlers. Other 5xx are server errors, what is
# left is a status that nobody handles.
_STATUSES = {
    401: Failure.LOGIN,
    402: Failure.PAYMENT,
    403: Failure.REFUSED,
    404: Failure.NOT_FOUND,
    407: Failure.LOGIN,
    408: Failure.TIMEOUT,
    410: Failure.REMOVED,
    425: Failure.UNAVAILABLE,
    429: Failure.TOO_MANY_REQUESTS,
    451: Failure.LEGAL,
    503: Failure.UNAVAILABLE,
    504: Failure.TIMEOUT,
    522: Failure.TIMEOUT,
    524: Failure.TIMEOUT,
    999: Failure.REFUSED,
}

# Each is set on a challenge and on no other answer, whatever its status:
# developers.cloudflare.com, "Detect a Challenge Page response"; docs.aws.amazon.com/waf, "CAPTCHA and
# Challenge action behavior" (202 and 405); Vercel's and DataDome's as github.com/microlinkhq/is-antibot
# has collected them from real answers.
_CHALLENGES = {
    b"Cf-Mitigated": (b"challenge",),
    b"X-Amzn-Waf-Action": (b"challenge", b"captcha"),
    b"X-Vercel-Mitigated": (b"challenge", b"deny"),
    b"X-Dd-B": (b"1", b"2"),
}
# Two that come with status 200 and no header of their own. Imperva puts one script on every page it
# fronts; only a challenge's names two hashes (is-antibot, pull request 60). Anubis: its own page's id.
_CHALLENGE_PAGES = re.compile(
    rb"_Incapsula_Resource\?SWJIYLWA=[0-9a-f]{32},|<iframe id=\"main-iframe\" src=\"/_Incapsula_Resource"
    rb"|<script id=\"anubis_challenge\""
)
HEAD_BYTES = 4096
# Servers that answer for a site and keep crawlers away from it.
_FRONTS = re.compile(rb"cloudflare|akamaighost|ddos-guard|sucuri|imperva|incapsula", re.IGNORECASE)

# Scrapy has no classes for these: they are told apart by what they say.
_IGNORED = (
    ("Forbidden by robots.txt", Failure.ROBOTS),
    ("max redirections reached", Failure.REDIRECTS),
    ("Ignored response", Failure.TOO_LARGE),
)
# The first that fits counts, so a subclass stands before its base.
_EXCEPTIONS: tuple[tuple[type[BaseException], Failure], ...] = (
    (scrapy_errors.CannotResolveHostError, Failure.DNS),
    (scrapy_errors.DownloadTimeoutError, Failure.TIMEOUT),
    (scrapy_errors.DownloadConnectionRefusedError, Failure.CONNECTION_REFUSED),
    (scrapy_errors.ResponseDataLossError, Failure.INCOMPLETE),
    (scrapy_errors.DownloadCancelledError, Failure.TOO_LARGE),
    (scrapy_errors.UnsupportedURLSchemeError, Failure.SCHEME),
    (scrapy_errors.NotSupported, Failure.SCHEME),
    (TLSError, Failure.TLS),
    (VerificationError, Failure.TLS),
    (twisted_errors.DNSLookupError, Failure.DNS),
    (twisted_errors.TimeoutError, Failure.TIMEOUT),
    (twisted_errors.TCPTimedOutError, Failure.TIMEOUT),
    (twisted_errors.ConnectionRefusedError, Failure.CONNECTION_REFUSED),
    (twisted_errors.ConnectError, Failure.UNREACHABLE),
    (twisted_errors.ConnectionClosed, Failure.CONNECTION_LOST),
    (zlib.error, Failure.GARBLED),
    (EOFError, Failure.GARBLED),
    # Not a gzip file; the other OSErrors have a class of Scrapy's or Twisted's.
    (OSError, Failure.GARBLED),
)


def of_challenge(headers: Headers, head: bytes) -> Failure | None:
    """Given an answer's headers and the first ``HEAD_BYTES`` of its body, return whether it is a challenge.

    The status does not matter: some challenges come as 200, and would be parsed as an empty page.
    """
    # Most pages have no such header and no such word, which is quicker to find out than the rest.
    if not _CHALLENGES.keys().isdisjoint(headers) and any(
        headers.get(name) in values for name, values in _CHALLENGES.items()
    ):
        return Failure.CHALLENGED
    if (b"_Incapsula_" in head or b"anubis_" in head) and _CHALLENGE_PAGES.search(head):
        return Failure.CHALLENGED
    return None


def of_response(status: int, headers: Headers, head: bytes) -> Failure:
    """Given an answer that the spider does not handle, return what kind of failure it is."""
    challenge = of_challenge(headers, head)
    if challenge is not None:
        return challenge
    if status == 503 and headers.get("Retry-After") and _FRONTS.search(headers.get("Server") or b""):
        return Failure.TURNED_AWAY
    return _STATUSES.get(status, Failure.SERVER_ERROR if 500 <= status < 600 else Failure.STATUS)


def of_exception(error: BaseException) -> Failure | None:
    """Given why no answer came, return what kind of failure it is.

    None if a component ignored the request on purpose, as for a page that is not modified.
    """
    if isinstance(error, scrapy_errors.StopDownload):
        return None
    if isinstance(error, scrapy_errors.IgnoreRequest):
        return getattr(error, "failure", None) or _of_ignored(str(error))
    return next(
        (
            failure
            for each in _with_causes(error)
            for known, failure in _EXCEPTIONS
            if isinstance(each, known)
        ),
        # What Twisted has wrapped and is none of these could not be read as HTTP.
        Failure.GARBLED if isinstance(error, scrapy_errors.DownloadFailedError) else Failure.UNKNOWN,
    )


def _of_ignored(message: str) -> Failure | None:
    return next((failure for start, failure in _IGNORED if message.startswith(start)), None)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is behind it: Scrapy's have a cause, Twisted's a list of reasons."""
    yield error
    for reason in getattr(error, "reasons", None) or ():
        yield from _with_causes(reason.value)
    if error.__cause__ is not None:
        yield from _with_causes(error.__cause__)
