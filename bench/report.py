"""What a run of the benchmarks showed, and the file it is kept in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from bench.measure import Spread


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to be."""

    sign: Literal["<=", ">="]
    value: float

    def is_met(self, measured: float) -> bool:
        """Given a figure, return whether it is as it has to be."""
        return measured <= self.value if self.sign == "<=" else measured >= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


def at_most(value: float) -> Target:
    """Return the target of a figure that has to be small."""
    return Target("<=", value)


def at_least(value: float) -> Target:
    """Return the target of a figure that has to be large."""
    return Target(">=", value)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: a ratio, or a difference in ``unit``. Without a target it only informs."""

    what: str
    measured: Spread
    target: Target | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """True if the median is as it has to be, or nothing is asked of it."""
        return self.target is None or self.target.is_met(self.measured.median)


@dataclass(frozen=True, slots=True)
class Reading:
    """One absolute value, which only says how large the things were whose ratio is a figure."""

    what: str
    unit: str
    measured: Spread


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn; ``name`` is also its file's."""

    name: str
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    logarithmic: bool = False


@dataclass(slots=True)
class Part:
    """What one part of the benchmarks showed."""

    figures: list[Figure] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    ended_at: str = ""
    took_seconds: float = 0.0

    def ended(self, took_seconds: float) -> Self:
        """Note when the part ended and how long it took."""
        self.ended_at = datetime.now(UTC).isoformat(timespec="minutes")
        self.took_seconds = round(took_seconds, 1)
        return self


@dataclass(slots=True)
class Report:
    """The machine and what its parts showed. ``is_quick`` figures only prove that everything runs."""

    machine: Mapping[str, str]
    is_quick: bool
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        """Every figure, part by part."""
        return [figure for part in self.parts.values() for figure in part.figures]

    def write(self, file: Path) -> None:
        """Write the report as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what ``write`` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        parts = {name: _part(part) for name, part in values["parts"].items()}
        return cls(values["machine"], values["is_quick"], parts)


def _part(values: Mapping[str, Any]) -> Part:
    return Part(
        figures=[Figure(**each | _measured(each) | _target(each)) for each in values["figures"]],
        readings=[Reading(**each | _measured(each)) for each in values["readings"]],
        plots=[
            Plot(**each | {"lines": [Line(**line) for line in each["lines"]]}) for each in values["plots"]
        ],
        ended_at=values["ended_at"],
        took_seconds=values["took_seconds"],
    )


def _measured(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"measured": Spread(**values["measured"])}


def _target(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"target": None if values["target"] is None else Target(**values["target"])}
