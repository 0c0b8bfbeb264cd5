"""What a saved page gives: offline, by the spider's own callback, each item as its row will hold it.

``expected.json`` has it in the order of the page: of each item its key, its address and its JSON, of
each link the callback that it is for; what the callback raised, or what has no row form, if anything.
"""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, is_dataclass
from typing import Any

import orjson
from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.utils.misc import arg_to_iter

from crawler.authoring.saved_pages import CASE_FILE, Case
from crawler.delivery.tables import SCRAPED_DATA
from crawler.exceptions import CaseError, ItemRefused
from crawler.items import ItemEncoder, mended_text
from crawler.records import line_fields
from crawler.validation import checker_of

_ITEM_MAX_BYTES = 8 * 1024 * 1024

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number, digit for digit: 10.50 and 10.5 are different rows."""

    digits: str


def spider_of(spidercls: type[Spider], settings: Settings, **arguments: str) -> Spider:
    """Given a spider's class, settings and arguments, return a spider with no crawl around it.

    Raise CaseError if it does not start.
    """
    try:
        return spidercls.from_crawler(Crawler(spidercls, settings), **arguments)
    except (TypeError, ValueError) as error:
        raise CaseError(f"the spider {spidercls.name!r} does not start: {error}") from error


def parse(spider: Spider, case: Case) -> Document:
    """Given a spider and a saved page of its site, return what its callback finds in the page.

    Raise CaseError if the page or the callback is not there. What the callback raises is part of
    what it finds.
    """
    callback = getattr(spider, case.callback, None)
    if not callable(callback):
        raise CaseError(
            f"{case.name}: {type(spider).__name__} has no callback {case.callback!r}; allowed: "
            f"{', '.join(callbacks_of(type(spider))) or 'none yet'}. Correct {case.folder / CASE_FILE}"
        )
    response = case.response()
    found: Document = {"items": [], "links": []}
    try:
        asyncio.run(_enter(callback, response, case.cb_kwargs, _encoder_of(spider), found))
    except Exception as error:  # noqa: BLE001  whatever it is, it is what the page gives
        found["raised"] = mended_text(f"{type(error).__name__}: {error}")
    return found


def callbacks_of(spidercls: type[Spider]) -> list[str]:
    """Return the names of a spider's own methods that take a page."""
    methods = inspect.getmembers(spidercls, inspect.isfunction)
    return [
        name
        for name, method in methods
        if name.startswith("parse")
        and list(inspect.signature(method).parameters)[1:2] == ["response"]
        and method is not Spider.parse
    ]


def expected_of(case: Case) -> Document | None:
    """Return what a saved page must give, or None if nobody has said yet. Raise CaseError if damaged."""
    if not case.expected_path.exists():
        return None
    try:
        document = _loaded(case.expected_path.read_text(encoding="utf-8"))
        return {**document, "items": list(document["items"]), "links": list(document["links"])}
    except (ValueError, TypeError, KeyError) as error:
        raise CaseError(
            f"{case.expected_path} is not what `scrapy golden` writes ({error!r}); write it anew: "
            f"scrapy golden {case.folder.parent.name} --update"
        ) from error


def expect(case: Case, found: Document) -> None:
    """Write what a page gives as what it must give from now on."""
    case.expected_path.write_text(f"{json_text(found, indent=True)}\n", encoding="utf-8")


def json_text(value: Any, *, indent: bool = False) -> str:
    """Return JSON of what was found, or of a part of it, with its numbers digit for digit."""
    options = orjson.OPT_PASSTHROUGH_DATACLASS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(value, lambda number: orjson.Fragment(number.digits), options).decode()


def _loaded(text: str) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number)


def _encoder_of(spider: Spider) -> ItemEncoder:
    return ItemEncoder(
        source=spider.name,
        key=getattr(spider, "key", "url"),
        keep_every=False,
        run_id="golden",
        host="golden",
        max_bytes=_ITEM_MAX_BYTES,
    )


async def _enter(
    callback: Any, response: Response, cb_kwargs: Document, encoder: ItemEncoder, found: Document
) -> None:
    """Enter all that a callback yields, until it ends or raises."""
    async for output in _outputs(callback(response, **cb_kwargs)):
        if isinstance(output, Request):
            found["links"].append(_link(output))
            continue
        try:
            found["items"].append(_row(encoder, output, response.url))
        except ItemRefused as reason:
            found.setdefault("refused", []).append(mended_text(str(reason)))


async def _outputs(result: Any) -> AsyncIterator[Any]:
    """Given what a callback returned, in any of the forms Scrapy takes, yield each of its outputs."""
    if inspect.isasyncgen(result):
        async for output in result:
            yield output
        return
    if inspect.iscoroutine(result):
        result = await result
    for output in arg_to_iter(result):
        yield output


def _row(encoder: ItemEncoder, item: Any, page_url: str) -> Document:
    """Return what the row of an item holds. Raise ItemRefused, as delivery does, if it gets none."""
    kind = type(item)
    if is_dataclass(kind):
        checker_of(kind).examine(item)
    fields = line_fields(encoder.encode(item, page_url).line)
    row = dict(zip(SCRAPED_DATA.column_names.split(","), fields, strict=True))
    return {"key": row["item_key"], "url": row["url"], "data": _loaded(row["data"] or "null")}


def _link(request: Request) -> Document:
    link: Document = {"url": request.url, "callback": getattr(request.callback, "__name__", None)}
    if request.method != "GET":
        link |= {"method": request.method, "body": request.body.decode(errors="replace")}
    if request.cb_kwargs:
        link["cb_kwargs"] = _loaded(json.dumps(request.cb_kwargs, default=str))
    return link
