"""The site that is crawled: ``/KIND/FORM/N/page.html`` or ``.json``, made before the first request.

KIND is ``listing`` (20 products in HTML) or ``api`` (50 in JSON). FORM says what the answer tells and
how it is packed: ``charset-gzip``, ``charset``, ``gzip`` or ``plain``. N is any number: the body is one of
a few, but its links are relative, so every page has addresses of its own. ``/served`` says how many
pages were answered since it was last asked.
"""

import asyncio
import gzip
import re
import socket
from collections.abc import Callable, Mapping
from urllib.request import urlopen

import orjson

from bench.catalogue import Product, html_page, json_page, product
from bench.children import announce

ITEMS_PER_PAGE = {"listing": 20, "api": 50}
FORMS = ("charset-gzip", "charset", "gzip", "plain")
BODIES = 40

_PATH = re.compile(rb"GET /(\w+)/([\w-]+)/(\d+)/page\.\w+ ")
_RENDER: Mapping[str, tuple[str, Callable[[list[Product]], str]]] = {
    "listing": ("text/html", html_page),
    "api": ("application/json", json_page),
}


def answers() -> dict[tuple[bytes, bytes], list[bytes]]:
    """Return every answer the site can give, whole, by kind and form."""
    return {
        (kind.encode(), form.encode()): [_answer(kind, form, number) for number in range(BODIES)]
        for kind in ITEMS_PER_PAGE
        for form in FORMS
    }


def pages_served(port: int) -> int:
    """Return how many pages the site has answered since this was last called."""
    with urlopen(f"http://127.0.0.1:{port}/served", timeout=10) as answer:
        return int(answer.read())


def products_of_page(kind: str, number: int) -> list[Product]:
    """Return what a page shows."""
    first = number % BODIES * ITEMS_PER_PAGE[kind]
    return [product(first + n, f"item-{n}.html") for n in range(ITEMS_PER_PAGE[kind])]


def payload_bytes(kind: str, pages: int) -> int:
    """Return how much JSON the items of so many pages are."""
    of_bodies = [
        sum(len(orjson.dumps(each)) for each in products_of_page(kind, number)) for number in range(BODIES)
    ]
    return round(pages / BODIES * sum(of_bodies))


def _answer(kind: str, form: str, number: int) -> bytes:
    shown = products_of_page(kind, number)
    content_type, render = _RENDER[kind]
    headers = [f"Content-Type: {content_type}" + ("; charset=utf-8" if "charset" in form else "")]
    body = render(shown).encode()
    if "gzip" in form:
        body = gzip.compress(body, compresslevel=6, mtime=0)
        headers.append("Content-Encoding: gzip")
    return _http("200 OK", headers, body)


def _http(status: str, headers: list[str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Server: bench", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class SiteProtocol(asyncio.Protocol):
    """One connection, kept open, with one request at a time on it, as crawlers do."""

    served = 0

    def __init__(self, pages: Mapping[tuple[bytes, bytes], list[bytes]]) -> None:
        self._pages = pages
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            assert self._transport is not None
            self._transport.write(self._answer_to(request))

    def _answer_to(self, request: bytes) -> bytes:
        if request.startswith(b"GET /served "):
            served, SiteProtocol.served = SiteProtocol.served, 0
            return _http("200 OK", ["Connection: close"], str(served).encode())
        match = _PATH.match(request)
        bodies = self._pages.get((match[1], match[2])) if match else None
        if match is None or bodies is None:
            return _http("404 Not Found", [], b"")
        SiteProtocol.served += 1
        return bodies[int(match[3]) % BODIES]


async def serve() -> None:
    """Serve until killed."""
    pages = answers()
    server = await asyncio.get_running_loop().create_server(
        lambda: SiteProtocol(pages), "127.0.0.1", 0, family=socket.AF_INET
    )
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
