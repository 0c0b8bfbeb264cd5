"""What a source says of itself, by its class, its docstring and its items; and the page of all sources."""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, get_args, get_type_hints

from itemadapter import ItemAdapter
from scrapy import Spider
from scrapy.settings import Settings

from crawler import schedule

TERMS = ("Site", "Refresh", "Robots", "Caveats")
"""What a spider's docstring says, each in a paragraph of lines that begins with ``Term:``."""

PAGES = {
    "never": "each is read once; later runs do not ask for it.",
    "if-changed": "read again by a later run if the site says that they have changed.",
    "always": "all are read by every run.",
}
"""What later runs do about pages whose items are safe, by ``revisit``. Pages with links are always read."""


@dataclass(frozen=True, slots=True)
class Description:
    """One source. ``fields`` are of each of its items, by name, with the type as it is declared."""

    name: str
    summary: str
    terms: dict[str, str]
    base_url: str
    key: list[str]
    keep: str
    revisit: str
    spool_first: bool
    schedule: str
    delay_seconds: float
    fields: dict[str, dict[str, str]]


def described(spidercls: type[Spider], settings: Settings | None = None) -> Description:
    """Given a spider's class and the project's settings, return what there is to know about it."""
    own = Settings() if settings is None else settings.copy()
    spidercls.update_settings(own)
    text = inspect.cleandoc(vars(spidercls).get("__doc__") or "")
    key = getattr(spidercls, "key", "url")
    return Description(
        name=spidercls.name,
        summary=_one_line(re.split(rf"^(?:{'|'.join(TERMS)}):", text, flags=re.MULTILINE)[0]),
        terms=dict(_terms(text)),
        base_url=getattr(spidercls, "base_url", ""),
        key=[key] if isinstance(key, str) else list(key),
        keep=getattr(spidercls, "keep", "changes"),
        revisit=getattr(spidercls, "revisit", "always"),
        spool_first=getattr(spidercls, "spool_first", False),
        schedule=getattr(spidercls, "schedule", ""),
        delay_seconds=own.getfloat("DOWNLOAD_DELAY"),
        fields=item_fields(spidercls),
    )


def item_fields(spidercls: type[Spider]) -> dict[str, dict[str, str]]:
    """Return the items that the spider's callbacks say they yield: each with its fields and their types."""
    items: dict[str, dict[str, str]] = {}
    for name, method in inspect.getmembers(spidercls, inspect.isfunction):
        if name.startswith("parse"):
            for part in _parts(get_type_hints(method).get("return")):
                if isinstance(part, type) and ItemAdapter.is_item_class(part) and part is not dict:
                    items[part.__name__] = _fields(part)
    return items


def _parts(hint: Any) -> Iterator[Any]:
    """Given ``Iterator[Book | Request]``, yield it and all it is made of."""
    yield hint
    for part in get_args(hint):
        yield from _parts(part)


def _fields(item: type) -> dict[str, str]:
    if is_dataclass(item):
        return {field.name: _type_in_words(field.type) for field in dataclass_fields(item)}
    return dict.fromkeys(ItemAdapter.get_field_names_from_class(item) or (), "any")


def _type_in_words(kind: Any) -> str:
    """Return a declared type as its author wrote it: ``Decimal | None``, without the module."""
    return kind.__name__ if isinstance(kind, type) else re.sub(r"\b(\w+\.)+", "", str(kind))


def _terms(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield each term with its text, which goes on until the next term or an empty line."""
    terms = "|".join(TERMS)
    pattern = rf"^({terms}):(.*?)(?=^(?:{terms}):|^\s*$|\Z)"
    for found in re.finditer(pattern, docstring, re.MULTILINE | re.DOTALL):
        yield found[1], _one_line(found[2])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def page_of(descriptions: Iterable[Description]) -> str:
    """Given the sources, return docs/sources.md."""
    sources = sorted(descriptions, key=lambda each: each.name)
    lines = [
        "# Sources",
        "",
        "What each spider says of itself. Written by `scrapy sources --write docs/sources.md`.",
        "",
        "| source | site | schedule | key | at most a request each |",
        "|---|---|---|---|---|",
        *map(_table_row, sources),
    ]
    for source in sources:
        lines += ["", *_section(source)]
    # Docstrings quote names as reStructuredText does.
    return "\n".join(lines).replace("``", "`") + "\n"


def _table_row(source: Description) -> str:
    cells = (
        f"[{source.name}](#{source.name})",
        source.base_url,
        f"`{source.schedule}`" if source.schedule else "by hand",
        ", ".join(f"`{name}`" for name in source.key),
        f"{source.delay_seconds:g} s",
    )
    return f"| {' | '.join(cells)} |"


def _section(source: Description) -> Iterator[str]:
    yield from (f"## {source.name}", "", source.summary, "")
    for term, text in source.terms.items():
        yield f"- **{term}**: {text}"
    if source.schedule:
        yield f"- **Schedule**: {schedule.in_words(source.schedule)} (`{source.schedule}`)."
    yield f"- **Pages**: {PAGES.get(source.revisit, source.revisit)}"
    yield f"- **Rows**: {_rows_in_words(source)}"
    for item, fields in source.fields.items():
        yield from ("", f"| `{item}` | type |", "|---|---|")
        for name, kind in fields.items():
            escaped = kind.replace("|", "\\|")
            yield f"| `{name}` | {escaped} |"


def _rows_in_words(source: Description) -> str:
    rows = "One for each version" if source.keep == "changes" else "One for each observation"
    first = " They reach the card before the NAS." if source.spool_first else ""
    return f"{rows} of a thing, which is named by {' and '.join(f'`{name}`' for name in source.key)}.{first}"
