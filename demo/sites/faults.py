"""What goes wrong on a local site, on purpose: which answers are late, wrong, cut or missing."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Kind = Literal["delay", "status", "challenge", "partial", "drop"]
RetryAfter = Literal["seconds", "date", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RETRY_AFTER_FORMS: tuple[RetryAfter, ...] = get_args(RetryAfter)
EVERY_PAGE = r"^(?!/robots\.txt$)"
"""robots.txt is spared unless a fault names it: its failure is a test of its own."""


class FaultError(ValueError):
    """Raised for a description of a fault that cannot be carried out."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong on a ``share`` of the paths that ``paths`` matches.

    It strikes the first ``times`` answers of each such path, or all of them when ``times`` is None.
    ``delay`` waits ``delay_seconds`` before any answer, ``status`` answers ``status`` (with
    Retry-After for 429 and 503, in the form ``retry_after``), ``challenge`` answers ``status``, which may
    be 200, as Cloudflare does to those it takes for robots, ``partial`` declares the whole length and
    closes the connection half-way, ``drop`` resets the connection without an answer. The clock that the
    headers of a ``status`` tell is ``clock_ahead_seconds`` ahead.
    """

    kind: Kind
    share: float = 1.0
    times: int | None = None
    paths: str = EVERY_PAGE
    status: int = 500
    retry_after_seconds: int = 1
    retry_after: RetryAfter = "seconds"
    clock_ahead_seconds: int = 0
    delay_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Raise FaultError for a field with a value that cannot be."""
        if self.kind not in KINDS:
            raise FaultError(f"kind={self.kind!r} of a fault; allowed: {', '.join(KINDS)}")
        if not 0 <= self.share <= 1:
            raise FaultError(f"share={self.share!r} of a fault; allowed: 0 to 1")
        if self.times is not None and self.times < 1:
            raise FaultError(f"times={self.times!r} of a fault; allowed: 1 or more, or null")
        if not 400 <= self.status <= 599 and (self.kind, self.status) != ("challenge", 200):
            raise FaultError(f"status={self.status!r} of a fault; allowed: 400 to 599")
        if self.retry_after not in RETRY_AFTER_FORMS:
            raise FaultError(
                f"retry_after={self.retry_after!r} of a fault; allowed: {', '.join(RETRY_AFTER_FORMS)}"
            )
        try:
            re.compile(self.paths)
        except re.error as error:
            raise FaultError(
                f"paths={self.paths!r} of a fault is not a regular expression: {error}"
            ) from error

    def chooses(self, seed: int, path: str) -> bool:
        """Return whether this fault may strike ``path``: the same answer for the same seed."""
        position = zlib.crc32(f"{seed}:{self.kind}:{self.status}:{path}".encode()) / 2**32
        return position < self.share and re.search(self.paths, path) is not None


def parse_faults(values: Iterable[Any]) -> list[Fault]:
    """Given decoded JSON objects, return their faults. Raise FaultError for a bad one."""
    known = {field.name for field in fields(Fault)}
    faults = []
    for value in values:
        if not isinstance(value, dict) or "kind" not in value or not value.keys() <= known:
            raise FaultError(
                f"fault {value!r}; allowed: an object with kind and any of "
                f"{', '.join(sorted(known - {'kind'}))}"
            )
        try:
            faults.append(Fault(**value))
        except TypeError as error:
            raise FaultError(f"fault {value!r} has a value of the wrong type: {error}") from error
    return faults


class FaultPlan:
    """The faults of one site, and how often each has struck each path."""

    def __init__(self, seed: int, faults: Iterable[Fault] = ()) -> None:
        self._seed = seed
        self._faults = tuple(faults)
        self._strikes: Counter[tuple[int, str]] = Counter()

    def strike(self, path: str) -> list[Fault]:
        """Return what goes wrong with this answer: any delays, and at most one other fault."""
        struck: list[Fault] = []
        answered = False
        for number, fault in enumerate(self._faults):
            final = fault.kind != "delay"
            spent = fault.times is not None and self._strikes[number, path] >= fault.times
            if spent or (final and answered) or not fault.chooses(self._seed, path):
                continue
            self._strikes[number, path] += 1
            answered = answered or final
            struck.append(fault)
        return struck
