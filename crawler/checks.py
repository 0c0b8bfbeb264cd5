"""Start-up checks: what would make the station run wrongly, found before it runs at all."""

import importlib.util
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from pathlib import PurePath
from typing import NamedTuple

HOME_PACKAGE = "crawler"
SIBLING_PACKAGES = ("spiders", "pipelines", "extensions")

Finder = Callable[[str], ModuleSpec | None]


class Finding(NamedTuple):
    """One thing that is wrong: a stable id, what was found, and what to do about it."""

    id: str
    message: str
    hint: str


def run(find_spec: Finder = importlib.util.find_spec) -> list[Finding]:
    """Given the import system's finder, return what every check found; empty when all is well.

    The finder must not import what it finds. Nothing is raised.
    """
    return list(packages_share_a_parent(find_spec))


def packages_share_a_parent(find_spec: Finder) -> Iterable[Finding]:
    """Given a finder, return CR-E001 for each package of ours that Python finds somewhere else.

    Scrapy and scrapyd put the project at the END of the import path, so an installed package of the
    same generic name wins, silently. The folder, or egg, that holds ``crawler`` is the yardstick.
    """
    home = _parent(find_spec, HOME_PACKAGE)
    for name in SIBLING_PACKAGES:
        found = _parent(find_spec, name)
        if found is None or found != home:
            yield Finding(
                "CR-E001",
                f"package {name!r} is {_place(find_spec, name)}; expected {name!r} beside "
                f"{HOME_PACKAGE!r}, which is {_place(find_spec, HOME_PACKAGE)}",
                "uninstall the distribution that owns the other one ('pip show -f NAME' lists a "
                "distribution's files), or give data-crawler a virtual environment of its own "
                "with its wheel installed; set PYTHONSAFEPATH=1 if it is the working directory "
                "that gets in the way",
            )


def _find(find_spec: Finder, name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError):
        # find_spec raises ValueError for a module placed in sys.modules without a spec.
        return None


def _parent(find_spec: Finder, name: str) -> PurePath | None:
    """The folder or egg holding the regular package; None if absent, or a file or namespace."""
    spec = _find(find_spec, name)
    if spec is None or spec.origin is None or spec.submodule_search_locations is None:
        return None
    return PurePath(spec.origin).parent.parent


def _place(find_spec: Finder, name: str) -> str:
    spec = _find(find_spec, name)
    if spec is None:
        return "nowhere on the import path"
    if spec.origin is not None:
        return spec.origin
    folders = ", ".join(spec.submodule_search_locations or ())
    return f"a namespace without __init__.py in {folders or 'no folder'}"
