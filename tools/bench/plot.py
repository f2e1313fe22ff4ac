"""How costs grow, as an SVG of two diagrams: nothing but lines and words, so no library is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from bench.measure import Sizes
from bench.rows_tables import build_mirror, writes_in_a_row

WIDTH, HEIGHT, MARGIN = 460, 320, 60
Points = Sequence[tuple[float, float]]


def growth(sizes: Sizes) -> list[tuple[str, Points]]:
    """(what, [(number, seconds in all)]) of page-table writes and of pages mirrored."""
    writes_in_a_row(100, sizes)  # whatever happens once
    writes = [(n, writes_in_a_row(n, sizes) * n) for n in (100, 1_000, 10_000, sizes.of(1_000_000, 100_000))]
    pages = [(n, min(partial(build_mirror, n)(sizes) for _ in range(3))) for n in (1_024, 8_192, 65_536, 262_144)]
    return [("page-table writes in a row", writes), ("pages of a mirror built at once", pages)]


def svg(diagrams: Sequence[tuple[str, Points]]) -> str:
    """Both axes are logarithmic; the grey line is what linear growth from the first point would be."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(diagrams)}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    ]
    for number, (title, points) in enumerate(diagrams):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">{_diagram(title, points)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _diagram(title: str, points: Points) -> str:
    first_x, first_y = points[0]
    linear = [(x, first_y * x / first_x) for x, _ in points]
    xs = [math.log10(x) for x, _ in points]
    ys = [math.log10(max(y, 1e-7)) for _, y in [*points, *linear]]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across = MARGIN + (math.log10(x) - low_x) / (high_x - low_x) * (WIDTH - 2 * MARGIN)
        up = (math.log10(max(y, 1e-7)) - low_y) / max(high_y - low_y, 1e-9) * (HEIGHT - 2 * MARGIN)
        return f"{across:.1f},{HEIGHT - MARGIN - up:.1f}"

    def line(some: Points, colour: str) -> str:
        return f'<polyline fill="none" stroke="{colour}" points="{" ".join(place(x, y) for x, y in some)}"/>'

    labels = "".join(
        f'<circle cx="{place(x, y).split(",")[0]}" cy="{place(x, y).split(",")[1]}" r="3" fill="#06c"/>'
        f'<text x="{place(x, y).split(",")[0]}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{int(x):,}</text>'
        f'<text x="{place(x, y).split(",")[0]}" y="{float(place(x, y).split(",")[1]) - 8:.1f}" '
        f'text-anchor="middle">{y * 1000:.3g} ms</text>'
        for x, y in points
    )
    heading = f'<text x="{WIDTH / 2}" y="24" text-anchor="middle" font-weight="bold">{title}</text>'
    return heading + line(linear, "#bbb") + line(points, "#06c") + labels
