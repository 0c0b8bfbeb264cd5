"""The local sites as a child process, for tests and the demonstration."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0
ANSWER_SECONDS = 10.0


class SitesError(RuntimeError):
    """Raised when the local sites did not start, or refused an order."""


@contextmanager
def running_sites(
    *,
    seed: int = 1,
    scale: str = "full",
    first_port: int = 0,
    python_docs_dir: Path | None = None,
    start_seconds: float = 20.0,
) -> Iterator[dict[str, str]]:
    """Start the sites, yield their base URLs by site name, and stop them whatever happens.

    Raise SitesError if they do not answer within ``start_seconds``.
    """
    command = [sys.executable, "-m", "demo.sites", "--until-input-ends"]
    command += ["--seed", str(seed), "--scale", scale, "--first-port", str(first_port)]
    if python_docs_dir is not None:
        command += ["--python-docs-dir", str(python_docs_dir)]
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        yield _read_addresses(process, start_seconds)
    finally:
        _stop(process)


def control(base_url: str, **order: Any) -> dict[str, Any]:
    """Given a site's base URL and members of ``POST /-/control``, return the site's new state.

    Raise SitesError with the site's reason if it refuses.
    """
    return _call(base_url, "/-/control", "POST", json.dumps(order).encode())


def requests_served(base_url: str, *, reset: bool = False) -> dict[str, Any]:
    """Return what the site has served; with ``reset``, start counting anew and return zeros."""
    return _call(base_url, "/-/requests", "DELETE" if reset else "GET")


def _call(base_url: str, path: str, method: str, body: bytes | None = None) -> dict[str, Any]:
    request = Request(urljoin(base_url, path), data=body, method=method)  # noqa: S310
    try:
        with urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            state: dict[str, Any] = json.load(answer)
            return state
    except HTTPError as error:
        reason = error.read().decode(errors="replace").strip()
        raise SitesError(f"{method} {request.full_url}: {error.code} {reason}") from error


def _read_addresses(process: subprocess.Popen[bytes], seconds: float) -> dict[str, str]:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if readable else b""
    if not line:
        state = f"exited with {process.wait(STOP_SECONDS)}" if readable else "is silent"
        raise SitesError(
            f"the local sites did not start within {seconds} s: the process {state}; "
            "run python -m demo.sites to see why"
        )
    addresses: dict[str, str] = json.loads(line)
    return addresses


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
