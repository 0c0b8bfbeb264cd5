"""Each failure has one kind and one reason: the tables, by what real servers and Scrapy say."""

import zlib
from collections.abc import Mapping

import pytest
from OpenSSL.SSL import Error as TLSError
from scrapy import exceptions
from scrapy.http import Headers
from twisted.internet import error as twisted_errors
from twisted.python.failure import Failure as TwistedFailure
from twisted.web.client import ResponseFailed

from crawler import stats
from crawler.failures import FINAL, Failure, Kind, of_challenge, of_exception, of_response
from crawler.ledger import FAILURES

ANSWERS: list[tuple[int, Mapping[str, bytes], bytes, str]] = [
    (403, {}, b"", "blocked/refused"),
    (999, {}, b"", "blocked/refused"),
    (429, {}, b"", "blocked/too_many_requests"),
    (403, {"cf-mitigated": b"challenge"}, b"", "blocked/challenged"),
    (503, {"cf-mitigated": b"challenge"}, b"", "blocked/challenged"),
    (405, {"x-amzn-waf-action": b"captcha"}, b"", "blocked/challenged"),
    (429, {"x-vercel-mitigated": b"challenge"}, b"", "blocked/challenged"),
    (403, {"x-dd-b": b"1"}, b"", "blocked/challenged"),
    (503, {"retry-after": b"5", "server": b"cloudflare"}, b"", "blocked/turned_away"),
    (503, {"retry-after": b"5", "server": b"AkamaiGHost"}, b"", "blocked/turned_away"),
    (503, {"retry-after": b"5", "server": b"nginx"}, b"", "broken/unavailable"),
    (503, {"retry-after": b"5"}, b"", "broken/unavailable"),
    (503, {"server": b"cloudflare"}, b"", "broken/unavailable"),
    (425, {}, b"", "broken/unavailable"),
    (500, {}, b"", "broken/server_error"),
    (502, {}, b"", "broken/server_error"),
    (520, {}, b"", "broken/server_error"),
    (408, {}, b"", "broken/timeout"),
    (504, {}, b"", "broken/timeout"),
    (522, {}, b"", "broken/timeout"),
    (404, {}, b"", "gone/not_found"),
    (410, {}, b"", "gone/removed"),
    (401, {}, b"", "forbidden/login"),
    (407, {}, b"", "forbidden/login"),
    (402, {}, b"", "forbidden/payment"),
    (451, {}, b"", "forbidden/legal"),
    (400, {}, b"", "unusable/status"),
    (405, {}, b"", "unusable/status"),
    (300, {}, b"", "unusable/status"),
    (600, {}, b"", "unusable/status"),
]


@pytest.mark.parametrize(("status", "headers", "head", "expected"), ANSWERS)
def test_what_an_answer_means(status: int, headers: Mapping[str, bytes], head: bytes, expected: str) -> None:
    failure = of_response(status, Headers(headers), head)
    assert f"{failure.kind}/{failure.reason}" == expected


IMPERVA = b'<script src="/_Incapsula_Resource?SWJIYLWA=%s"></script>'
ONE_HASH, OTHER_HASH = b"719d34d31c8e3a6e6fffd425f7e032f3", b"5074a744e2e3d891814e9a2dace20bd4"


@pytest.mark.parametrize(
    ("headers", "head", "is_challenge"),
    [
        ({"cf-mitigated": b"challenge"}, b"<html>", True),
        ({"cf-mitigated": b"none"}, b"<html>", False),
        ({"x-amzn-waf-action": b"challenge"}, b"", True),
        ({"server": b"cloudflare"}, b"<html>", False),
        ({}, IMPERVA % (OTHER_HASH + b"," + ONE_HASH), True),
        ({}, IMPERVA % (ONE_HASH + b"&amp;ns=2&amp;cb=1765186527"), False),
        ({}, b'<iframe id="main-iframe" src="/_Incapsula_Resource?CWUDNSAI=23', True),
        ({}, b'<script id="anubis_challenge" type="application/json">', True),
        ({}, b"<p>How we set up anubis_challenge pages</p>", False),
        ({}, b"", False),
    ],
)
def test_a_challenge_is_told_from_a_page_whatever_its_status(
    headers: Mapping[str, bytes], head: bytes, is_challenge: bool
) -> None:
    assert (of_challenge(Headers(headers), head) is Failure.CHALLENGED) is is_challenge


def wrapped(*reasons: Exception, as_error: type[Exception] = exceptions.DownloadFailedError) -> Exception:
    """Return what Scrapy raises for a failure that Twisted has wrapped."""
    error = as_error("wrapped")
    error.__cause__ = ResponseFailed([TwistedFailure(reason) for reason in reasons])  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.CannotResolveHostError(), Failure.DNS),
        (exceptions.DownloadTimeoutError(), Failure.TIMEOUT),
        (exceptions.DownloadConnectionRefusedError(), Failure.CONNECTION_REFUSED),
        (
            wrapped(twisted_errors.ConnectionDone(), as_error=exceptions.ResponseDataLossError),
            Failure.INCOMPLETE,
        ),
        (exceptions.DownloadCancelledError("larger than download max size"), Failure.TOO_LARGE),
        (exceptions.NotSupported("Unsupported URL scheme"), Failure.SCHEME),
        (wrapped(twisted_errors.ConnectionLost()), Failure.CONNECTION_LOST),
        (wrapped(twisted_errors.ConnectionDone()), Failure.CONNECTION_LOST),
        (wrapped(TLSError([("SSL routines", "", "wrong version number")])), Failure.TLS),
        (wrapped(ValueError("not HTTP")), Failure.GARBLED),
        (twisted_errors.NoRouteError(), Failure.UNREACHABLE),  # type: ignore[no-untyped-call]
        (twisted_errors.TCPTimedOutError(), Failure.TIMEOUT),  # type: ignore[no-untyped-call]
        (zlib.error("wrong data"), Failure.GARBLED),
        (OSError("Not a gzipped file"), Failure.GARBLED),
        (ZeroDivisionError(), Failure.UNKNOWN),
        (exceptions.IgnoreRequest("Forbidden by robots.txt"), Failure.ROBOTS),
        (exceptions.IgnoreRequest("max redirections reached"), Failure.REDIRECTS),
        (exceptions.IgnoreRequest("Ignored response <200> because its body"), Failure.TOO_LARGE),
        (exceptions.IgnoreRequest("a component does not want it"), None),
        (exceptions.StopDownload(), None),
    ],
    ids=repr,
)
def test_what_an_exception_means(error: Exception, expected: Failure | None) -> None:
    assert of_exception(error) is expected


def test_every_failure_has_a_place_of_its_own() -> None:
    names = [stats.failure(failure.kind, failure.reason) for failure in Failure]
    assert len(set(names)) == len(Failure) > 20
    assert all(name.count("/") == 3 and " " not in name for name in names)
    assert {failure.kind for failure in Failure} == set(Kind)
    assert set(FAILURES) == set(Kind) - {Kind.UNFINISHED}
    assert {failure.kind for failure in Failure if failure.is_final} == FINAL
