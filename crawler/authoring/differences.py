"""How what a page gives differs from what it must give, in lines that a person reads."""

from collections.abc import Iterator, Mapping
from typing import Any

from crawler.authoring.golden import Document, json_text

_ABSENT = object()
_SHOWN_CHARACTERS = 100
_SAME_CHARACTERS_SHOWN = 20


def differences(expected: Document, found: Document) -> list[str]:
    """Return a line for each thing that is not as expected: which item or link, which field, and how."""
    lines: list[str] = []
    for part, name in (("items", "key"), ("links", "url")):
        wanted, got = _by_name(expected[part], name), _by_name(found[part], name)
        lines += _unequal_members(part[:-1], wanted, got, separator=" ")
        if wanted.keys() == got.keys() and list(wanted) != list(got):
            lines.append(f"{part}: in another order: expected {', '.join(wanted)}; found {', '.join(got)}")
    for part in ("refused", "raised"):
        lines += _unequal(part, expected.get(part, _ABSENT), found.get(part, _ABSENT))
    return lines


def _by_name(entries: list[Document], name: str) -> dict[str, Document]:
    """Return the entries by what names them; the second of a name is told apart by its number."""
    named: dict[str, Document] = {}
    for entry in entries:
        text, number = str(entry[name]), 1
        while text in named:
            number += 1
            text = f"{entry[name]} ({number})"
        named[text] = entry
    return named


def _unequal(path: str, expected: Any, found: Any) -> Iterator[str]:
    if expected == found:
        return
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        yield from _unequal_members(path, expected, found, separator=": ")
    elif isinstance(expected, list) and isinstance(found, list):
        members = (dict(enumerate(each)) for each in (expected, found))
        yield from _unequal_members(path, *members, separator=": ")
    else:
        yield f"{path}: {_in_words(expected, found)}"


def _unequal_members(
    path: str, expected: Mapping[Any, Any], found: Mapping[Any, Any], *, separator: str
) -> Iterator[str]:
    for name in [*expected, *(other for other in found if other not in expected)]:
        yield from _unequal(f"{path}{separator}{name}", expected.get(name, _ABSENT), found.get(name, _ABSENT))


def _in_words(expected: Any, found: Any) -> str:
    if expected is _ABSENT:
        return f"not expected: {_short(json_text(found))}"
    if found is _ABSENT:
        return f"missing; expected: {_short(json_text(expected))}"
    wanted, got = json_text(expected), json_text(found)
    start = 0
    if max(len(wanted), len(got)) > _SHOWN_CHARACTERS:
        start = max(0, _same_characters(wanted, got) - _SAME_CHARACTERS_SHOWN)
    return f"expected {_short(wanted, start)}, found {_short(got, start)}"


def _same_characters(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _short(text: str, start: int = 0) -> str:
    end = start + _SHOWN_CHARACTERS
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"
