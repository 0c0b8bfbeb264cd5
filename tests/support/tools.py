"""What a test does about a tool that this machine lacks."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def require_program(name: str, *, install: str) -> str:
    """Given a program and how to install it, return its path.

    Without it the test is skipped, with the remedy as its reason; with CI=true it fails.
    """
    path = shutil.which(name)
    if path is None:
        _give_up(f"program {name!r} is not on PATH", install)
    return path


def require_package(name: str, *, install: str) -> None:
    """Given an importable package and how to install it, return if it is there, else as above."""
    if importlib.util.find_spec(name) is None:
        _give_up(f"Python package {name!r} is not installed", install)


def require_path(path: Path, *, install: str) -> Path:
    """Given a file or folder and how to install it, return it if it is there, else as above."""
    if not path.exists():
        _give_up(f"{path} is not there", install)
    return path


def require_root(*, to: str) -> None:
    """Given what only root may do, return if we are root, else as above."""
    if os.geteuid() != 0:
        _give_up(f"no test but root's may {to}", "run pytest as root")


def _give_up(what: str, install: str) -> NoReturn:
    reason = f"{what}; to run this test: {install}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true makes this a failure)", pytrace=False)
    pytest.skip(reason)
