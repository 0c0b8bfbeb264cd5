"""Pages of a site, saved so that its spider can be tried offline.

A case is a folder ``tests/sites/SOURCE/CASE`` of three files:

``case.json``
    How the page came: url, callback, cb_kwargs, status, headers, the name of its file, and its origin.
``page.html`` (or .json, .xml, .txt)
    The body as the callback got it: decompressed, otherwise byte for byte.
``expected.json``
    What the page must give: see ``crawler.authoring.golden``.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scrapy import Request
from scrapy.http import Headers, HtmlResponse, Response, TextResponse, XmlResponse
from scrapy.http.response.json import JsonResponse
from scrapy.responsetypes import responsetypes

from crawler.exceptions import CaseError

CASE_FILE, EXPECTED_FILE = "case.json", "expected.json"
EXAMPLE = "example"
"""The origin of a page that ``scrapy genspider`` made up: a real one is to replace it."""

HEADERS_KEPT = ("Content-Type", "Content-Language", "Last-Modified", "Link")
"""What a callback may read and what tells nothing about who asked. Others are added by hand."""

# The first that a response is an instance of: JSON, HTML and XML are text, too.
_SUFFIXES: tuple[tuple[type[Response], str], ...] = (
    (HtmlResponse, ".html"),
    (XmlResponse, ".xml"),
    (JsonResponse, ".json"),
    (TextResponse, ".txt"),
    (Response, ".bin"),
)
_TYPES: dict[str, type] = {
    "url": str,
    "callback": str,
    "page": str,
    "origin": str,
    "cb_kwargs": dict,
    "status": int,
    "headers": dict,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One saved page: where it came from, and which callback it is for with which arguments."""

    folder: Path
    url: str
    callback: str
    page: str
    origin: str
    cb_kwargs: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``SOURCE/CASE``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def page_path(self) -> Path:
        """The file of the body."""
        return self.folder / self.page

    @property
    def expected_path(self) -> Path:
        """The file of what the page must give."""
        return self.folder / EXPECTED_FILE

    @property
    def is_example(self) -> bool:
        """True if the page was made up."""
        return self.origin == EXAMPLE

    def response(self) -> Response:
        """Return the response that the callback got. Raise CaseError if the page is not there."""
        try:
            body = self.page_path.read_bytes()
        except OSError as error:
            raise CaseError(f"{self.name}: its page cannot be read: {error}") from error
        kind = responsetypes.from_args(headers=Headers(self.headers), url=self.url, body=body)
        request = Request(self.url, cb_kwargs=self.cb_kwargs)
        return kind(self.url, status=self.status, headers=self.headers, body=body, request=request)


def case_of(
    response: Response, folder: Path, *, callback: str, origin: str, cb_kwargs: dict[str, Any] | None = None
) -> Case:
    """Given a response, its callback and where it came from, return the case to save it as."""
    headers = {
        name: (response.headers[name] or b"").decode("latin-1")
        for name in HEADERS_KEPT
        if name in response.headers
    }
    suffix = next(suffix for kind, suffix in _SUFFIXES if isinstance(response, kind))
    return Case(
        folder, response.url, callback, f"page{suffix}", origin, cb_kwargs or {}, response.status, headers
    )


def save_case(case: Case, body: bytes) -> None:
    """Write a case and its page in place of those its folder held; what is expected of it stays.

    So that a page that is saved anew shows what has changed since.
    """
    case.folder.mkdir(parents=True, exist_ok=True)
    for old in case.folder.glob("page.*"):
        old.unlink()
    entries = {name: getattr(case, name) for name in _TYPES}
    text = json.dumps(entries, indent=2, ensure_ascii=False)
    (case.folder / CASE_FILE).write_text(f"{text}\n", encoding="utf-8")
    case.page_path.write_bytes(body)


def cases_of(source_folder: Path) -> list[Case]:
    """Given the folder of a source, return its cases by name. Raise CaseError for one that is none."""
    return [read_case(file.parent) for file in sorted(source_folder.glob(f"*/{CASE_FILE}"))]


def read_case(folder: Path) -> Case:
    """Given the folder of a case, return it. Raise CaseError if its file is not what it should be."""
    file = folder / CASE_FILE
    try:
        case = Case(folder=folder, **json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise CaseError(
            f"{file} describes no saved page ({error}); allowed: an object with {', '.join(_TYPES)}. "
            "`scrapy golden SOURCE --save URL` writes one"
        ) from error
    for name, kind in _TYPES.items():
        if not isinstance(getattr(case, name), kind):
            raise CaseError(f"{file}: {name}={getattr(case, name)!r}; allowed: {kind.__name__}. Correct it")
    return case
