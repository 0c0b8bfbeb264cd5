"""The local sites on loopback, one port each, with a control endpoint for tests and experiments.

``POST /-/control`` takes a JSON object; each member is optional and replaces what was set before:

    {"revision": 2, "share": 0.05,
     "rewrites": {"star-rating": "stars", "<h1>": "<h2>"},
     "faults": [{"kind": "status", "status": 500, "share": 0.2, "times": 2},
                {"kind": "delay", "delay_seconds": 0.5, "paths": "^/catalogue/"}],
     "robots": "User-agent: *\\nCrawl-delay: 2\\n",
     "validators": "both"}

From one revision to the next exactly ``share`` of the items change, and going back shows the old
pages again. ``rewrites`` replaces texts in every page, as when a site changes its markup.
``demo.sites.faults.Fault`` lists the fields of a fault. ``robots`` is served in the place
of the site's robots.txt; null brings that back. ``validators`` says what a page is known by, and how
honestly: see ``VALIDATORS``. The answer is the new state.

``GET /-/requests`` returns what was served since the start or the last ``DELETE /-/requests``:
requests, answers by status, faults by kind, body bytes sent, requests by path, and of the first ten
thousand the moment each came (seconds since the epoch) and its path.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime, formatdate, parsedate_to_datetime
from functools import partial
from gzip import compress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from demo.sites.books import BooksSite
from demo.sites.earthquakes import EarthquakesSite
from demo.sites.faults import Fault, FaultError, FaultPlan, parse_faults
from demo.sites.page import LocalSite, Page
from demo.sites.pypi_releases import PypiReleasesSite
from demo.sites.python_docs import PythonDocsDirectory, PythonDocsSite
from demo.sites.revision import FIRST, Revision

LOOPBACK = "127.0.0.1"
PAGES_CACHED = 1500
"""About 20 MB: a whole full-scale site, so that a second crawl costs no rendering."""

ARRIVALS_KEPT = 10_000
SMALLEST_COMPRESSED = 256
VALIDATORS = {
    "both": "an entity tag and a date, and 304 for who has the page already",
    "tag": "a tag only",
    "date": "a date only",
    "none": "neither",
    "unheeded": "both, but every answer is the whole page",
    "stuck": "those of the first revision whatever the page says, and every answer is the whole page",
}
LAST_REVISION = 1000


@dataclass(frozen=True, slots=True)
class Scale:
    """How many items each site has."""

    books: int
    python_docs: int
    earthquakes: int
    pypi_releases: int


SCALES = {
    "full": Scale(books=1000, python_docs=300, earthquakes=250, pypi_releases=100),
    "small": Scale(books=60, python_docs=30, earthquakes=40, pypi_releases=20),
}


class ControlError(ValueError):
    """Raised for a control request that cannot be carried out."""


@dataclass(frozen=True, slots=True)
class Representation:
    """A page as it is sent: plain and compressed, with its entity tag (quoted, maybe weak)."""

    page: Page
    gzipped: bytes | None
    tag: str


@dataclass(slots=True)
class Served:
    """What a site has answered."""

    requests: int = 0
    bytes_sent: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)
    arrivals: list[tuple[float, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "bytes_sent": self.bytes_sent,
            "by_status": dict(self.by_status),
            "by_fault": dict(self.by_fault),
            "by_path": dict(self.by_path),
            "arrivals": self.arrivals,
        }


class Exchange:
    """One request and its answer: the typed part of Twisted's request that the sites use."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.gone = False
        self.method = request.method.decode("latin-1")
        self.path = request.path.decode("latin-1")
        request.notifyFinish().addErrback(self._lost)

    def header(self, name: str) -> str:
        """Return a request header, or an empty string."""
        return self._request.getHeader(name) or ""

    def send(self, status: int, headers: Mapping[str, str], body: bytes, cut: bool = False) -> int:
        """Answer, or with ``cut`` only the first half of the body. Return the body bytes sent."""
        if self.gone:
            return 0
        self._request.setResponseCode(status)
        for name, value in headers.items():
            self._request.responseHeaders.setRawHeaders(name, [value])
        if status != 304:
            self._request.responseHeaders.setRawHeaders("Content-Length", [str(len(body))])
        sent = body[: len(body) // 2] if cut else body
        self._request.write(sent)  # type: ignore[no-untyped-call]
        if cut:
            self._request.loseConnection()  # type: ignore[no-untyped-call]
        else:
            self._request.finish()  # type: ignore[no-untyped-call]
        return 0 if self.method == "HEAD" else len(sent)

    def drop(self) -> None:
        """Reset the connection without an answer."""
        channel = self._request.channel
        if not self.gone and channel is not None:
            transport: Any = channel.transport
            transport.abortConnection()

    def _lost(self, _reason: object) -> None:
        self.gone = True


class SiteResource(Resource):
    """Every path of one site."""

    isLeaf = True

    def __init__(self, site: LocalSite, seed: int, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.site = site
        self.seed = seed
        self.reactor = reactor
        self.revision = FIRST
        self.faults: list[Fault] = []
        self.robots: str | None = None
        self.validators = "both"
        self.plan = FaultPlan(seed)
        self.served = Served()
        self.rewrites: dict[str, str] = {}
        self._representations: dict[tuple[str, Revision], Representation] = {}

    def render(self, request: Request) -> int:
        """Answer one request of Twisted's."""
        exchange = Exchange(request)
        if exchange.path.startswith("/-/"):
            self._administer(exchange, request)
        elif exchange.method in ("GET", "HEAD"):
            self._serve(exchange)
        else:
            exchange.send(405, {"Allow": "GET, HEAD"}, b"")
        return NOT_DONE_YET

    def _administer(self, exchange: Exchange, request: Request) -> None:
        body = request.content.read() if request.content is not None else b""
        match exchange.method, exchange.path:
            case "POST", "/-/control":
                try:
                    self._control(json.loads(body))
                except ValueError as error:
                    exchange.send(400, {"Content-Type": "text/plain"}, f"{error}\n".encode())
                    return
                answer: dict[str, Any] = {
                    "revision": self.revision.number,
                    "share": self.revision.share,
                    "rewrites": self.rewrites,
                    "faults": [asdict(fault) for fault in self.faults],
                    "robots": self.robots,
                    "validators": self.validators,
                }
            case "GET", "/-/requests":
                answer = self.served.as_json()
            case "DELETE", "/-/requests":
                self.served = Served()
                answer = self.served.as_json()
            case _:
                exchange.send(404, {}, b"")
                return
        exchange.send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _control(self, order: Any) -> None:
        known = {"revision", "share", "rewrites", "faults", "robots", "validators"}
        if not isinstance(order, dict) or not order.keys() <= known:
            raise ControlError(
                f"control {order!r}; allowed: an object with any of {', '.join(sorted(known))}"
            )
        revision = parse_revision(order, self.revision)
        rewrites = parse_rewrites(order, self.rewrites)
        faults = order.get("faults")
        if not isinstance(faults, list | None):
            raise FaultError(f"faults={faults!r}; allowed: a list of objects")
        if faults is not None:
            self.faults = parse_faults(faults)
            self.plan = FaultPlan(self.seed, self.faults)
        if not isinstance(order.get("robots"), str | None):
            raise ControlError(f"robots={order['robots']!r}; allowed: a text, or null")
        self.robots = order.get("robots", self.robots)
        self.validators = parse_validators(order, self.validators)
        self.revision = revision
        if rewrites != self.rewrites:
            self.rewrites = rewrites
            self._representations.clear()

    def _serve(self, exchange: Exchange) -> None:
        self.served.requests += 1
        self.served.by_path[exchange.path] += 1
        if len(self.served.arrivals) < ARRIVALS_KEPT:
            self.served.arrivals.append((time.time(), exchange.path))
        faults = self.plan.strike(exchange.path)
        self.served.by_fault.update(fault.kind for fault in faults)
        delay = sum(fault.delay_seconds for fault in faults if fault.kind == "delay")
        final = next((fault for fault in faults if fault.kind != "delay"), None)
        if delay:
            self.reactor.callLater(delay, partial(self._answer, exchange, final))
        else:
            self._answer(exchange, final)

    def _answer(self, exchange: Exchange, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "drop":
            exchange.drop()
        elif fault is not None and fault.kind in ("status", "challenge"):
            self._send(exchange, fault.status, headers_of(fault), b"<h1>This is a fault, as ordered</h1>\n")
        elif exchange.path == "/robots.txt" and self.robots is not None:
            self._send(exchange, 200, {"Content-Type": "text/plain"}, self.robots.encode())
        else:
            self._answer_page(exchange, cut=fault is not None)

    def _answer_page(self, exchange: Exchange, cut: bool) -> None:
        found = self._representation(exchange.path, self.revision)
        if found is None:
            self._send(exchange, 404, {"Content-Type": "text/html"}, b"<h1>Not Found</h1>\n")
            return
        zipped = found.gzipped if accepts_gzip(exchange.header("accept-encoding")) else None
        headers = {"Content-Type": found.page.content_type, "Vary": "Accept-Encoding"}
        headers |= self._validators(exchange.path, found, is_zipped=zipped is not None)
        if self.validators not in ("unheeded", "stuck") and is_known(exchange, found):
            self._send(exchange, 304, headers, b"")
        elif zipped is None:
            self._send(exchange, 200, headers, found.page.body, cut)
        else:
            self._send(exchange, 200, headers | {"Content-Encoding": "gzip"}, zipped, cut)

    def _send(
        self,
        exchange: Exchange,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        cut: bool = False,
    ) -> None:
        self.served.by_status[status] += 1
        self.served.bytes_sent += exchange.send(status, headers, body, cut)

    def _validators(self, path: str, found: Representation, *, is_zipped: bool) -> dict[str, str]:
        """Return the headers by which a page is known, as ``validators`` was ordered."""
        if self.validators == "stuck":
            found = self._representation(path, FIRST) or found
        headers = {}
        if self.validators not in ("none", "date"):
            headers["ETag"] = gzip_tag(found.tag) if is_zipped else found.tag
        if self.validators not in ("none", "tag"):
            headers["Last-Modified"] = format_datetime(found.page.modified, usegmt=True)
        return headers

    def _representation(self, path: str, revision: Revision) -> Representation | None:
        found = self._representations.get((path, revision))
        if found is None:
            page = self.site.page(path, revision)
            if page is None:
                return None
            found = represent(rewritten(page, self.rewrites), path)
            if len(self._representations) >= PAGES_CACHED:
                self._representations.clear()
            self._representations[path, revision] = found
        return found


def headers_of(fault: Fault) -> dict[str, str]:
    """Return the headers of an answer that is a fault."""
    headers = {"Content-Type": "text/html"}
    if fault.kind == "challenge":
        return headers | {"cf-mitigated": "challenge"}
    now = time.time() + fault.clock_ahead_seconds
    headers["Date"] = formatdate(now, usegmt=True)
    if fault.status in (429, 503) and fault.retry_after == "seconds":
        headers["Retry-After"] = str(fault.retry_after_seconds)
    if fault.status in (429, 503) and fault.retry_after == "date":
        headers["Retry-After"] = formatdate(now + fault.retry_after_seconds, usegmt=True)
    return headers


def rewritten(page: Page, rewrites: Mapping[str, str]) -> Page:
    """Return the page with the texts replaced; if there was any, as published an hour later."""
    body = page.body
    for text, other in rewrites.items():
        body = body.replace(text.encode(), other.encode())
    return (
        page if body == page.body else replace(page, body=body, modified=page.modified + timedelta(hours=1))
    )


def represent(page: Page, path: str) -> Representation:
    """Given a page, return it with its entity tag: strong on half of the paths, else weak."""
    digest = blake2b(page.body, digest_size=8).hexdigest()
    weak = blake2b(path.encode(), digest_size=1).digest()[0] % 2
    large = len(page.body) >= SMALLEST_COMPRESSED
    gzipped = compress(page.body, compresslevel=5, mtime=0) if large else None
    return Representation(page, gzipped, f'W/"{digest}"' if weak else f'"{digest}"')


def gzip_tag(tag: str) -> str:
    """Return the tag of the compressed form: a strong tag must differ, a weak one need not."""
    return tag if tag.startswith("W/") else f'{tag[:-1]}-gzip"'


def accepts_gzip(accept_encoding: str) -> bool:
    return any(coding.split(";")[0].strip() == "gzip" for coding in accept_encoding.split(","))


def is_known(exchange: Exchange, found: Representation) -> bool:
    """Return whether the client has this page already. If-None-Match outranks If-Modified-Since."""
    tags = exchange.header("if-none-match")
    if tags:
        own = {found.tag.removeprefix("W/"), gzip_tag(found.tag).removeprefix("W/")}
        return tags.strip() == "*" or any(tag.strip().removeprefix("W/") in own for tag in tags.split(","))
    since = exchange.header("if-modified-since")
    try:
        return bool(since) and found.page.modified <= parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return False


def parse_revision(order: Mapping[str, Any], current: Revision) -> Revision:
    """Given a control order, return the revision it asks for. Raise ControlError for a bad one."""
    number = order.get("revision", current.number)
    share = order.get("share", current.share)
    if not isinstance(number, int) or not 1 <= number <= LAST_REVISION:
        raise ControlError(f"revision={number!r}; allowed: an integer from 1 to {LAST_REVISION}")
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ControlError(f"share={share!r}; allowed: a number from 0 to 1")
    return Revision(number, share)


def parse_rewrites(order: Mapping[str, Any], current: dict[str, str]) -> dict[str, str]:
    """Given a control order, return the rewrites it asks for. Raise ControlError for bad ones."""
    rewrites = order.get("rewrites", current)
    if not isinstance(rewrites, dict) or not all(
        text and isinstance(other, str) for text, other in rewrites.items()
    ):
        raise ControlError(f"rewrites={rewrites!r}; allowed: an object of texts, none of them in place of ''")
    return rewrites


def parse_validators(order: Mapping[str, Any], current: str) -> str:
    """Given a control order, return how pages are to be known. Raise ControlError for a bad word."""
    validators = order.get("validators", current)
    if validators not in VALIDATORS:
        raise ControlError(f"validators={validators!r}; allowed: {', '.join(VALIDATORS)}")
    return str(validators)


def local_sites(seed: int, scale: Scale, python_docs_dir: Path | None = None) -> list[LocalSite]:
    """Return the four sites; the real documentation in ``python_docs_dir`` replaces the third.

    Raise ValueError if that directory is not the Python documentation.
    """
    docs: LocalSite = (
        PythonDocsSite(seed, scale.python_docs)
        if python_docs_dir is None
        else PythonDocsDirectory(python_docs_dir)
    )
    return [
        BooksSite(seed, scale.books),
        docs,
        EarthquakesSite(seed, scale.earthquakes),
        PypiReleasesSite(seed, scale.pypi_releases),
    ]


def listen(sites: list[LocalSite], seed: int, reactor: Any, first_port: int = 0) -> dict[str, str]:
    """Listen for each site on its own loopback port and return the base URLs by site name.

    ``reactor`` is Twisted's, running or about to. ``first_port`` gives the sites that port and the
    following ones, 0 free ones. Twisted's CannotListenError is raised for a port that is taken.
    """
    addresses = {}
    for offset, site in enumerate(sites):
        resource = SiteResource(site, seed, reactor)
        factory = Site(resource)  # type: ignore[no-untyped-call]
        factory.displayTracebacks = False
        factory.noisy = False
        wanted = first_port + offset if first_port else 0
        port = reactor.listenTCP(wanted, factory, interface=LOOPBACK)
        addresses[site.name] = f"http://{LOOPBACK}:{port.getHost().port}/{site.base_path}"
    return addresses
