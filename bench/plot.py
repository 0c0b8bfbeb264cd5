"""Line plots as SVG, of the few elements that need no library."""

import math
from collections.abc import Callable, Sequence
from html import escape

from bench.report import Plot

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
COLOURS = ("#1f6feb", "#d1591f", "#2da44e", "#8250df")
Scale = Callable[[float], float]


def svg(plot: Plot) -> str:
    """Given a plot, return it as an SVG document."""
    points = [point for line in plot.lines for point in line.points]
    x_ticks = ticks(0.0, max(x for x, _ in points))
    highest = max(y for _, y in points)
    y_ticks = decades(min(y for _, y in points), highest) if plot.logarithmic else ticks(0.0, highest)
    across = _scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    bend = math.log10 if plot.logarithmic else float
    straight = _scale(bend(y_ticks[0]), bend(y_ticks[-1]), HEIGHT - BOTTOM, TOP)

    def up(y: float) -> float:
        return straight(bend(y))

    body = [
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(plot.title)}</text>',
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(plot.x)}</text>',
        f'<text x="8" y="{TOP - 8}">{escape(plot.y)}</text>',
        *_grid(x_ticks, y_ticks, across, up),
    ]
    for number, line in enumerate(plot.lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        legend_x, legend_y = WIDTH - 200, TOP + 16 + 18 * number
        body += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<rect x="{legend_x}" y="{legend_y - 9}" width="12" height="4" fill="{colour}"/>',
            f'<text x="{legend_x + 18}" y="{legend_y - 3}">{escape(line.name)}</text>',
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
    font = ' font-family="sans-serif" font-size="12">'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([head + font, ground, *body, "</svg>\n"])


def ticks(low: float, high: float) -> list[float]:
    """Return five to ten round numbers from ``low`` to ``high`` or just beyond."""
    rough = (high - low or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= rough)
    count = math.ceil((high - low) / step - 1e-9) or 1
    return [low + number * step for number in range(count + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten from below ``low`` to above ``high``."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _scale(low: float, high: float, begin: float, end: float) -> Scale:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], across: Scale, up: Scale) -> list[str]:
    elements = []
    for y in y_ticks:
        elements.append(_rule(LEFT, up(y), WIDTH - RIGHT, up(y)))
        elements.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:,g}</text>')
    for x in x_ticks:
        elements.append(_rule(across(x), TOP, across(x), HEIGHT - BOTTOM))
        elements.append(
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,g}</text>'
        )
    return elements


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'
