"""Line charts as inline SVG: sharp at any size, coloured by the page's style sheet, in the light and in the dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 44

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: its style class, its name, its points (x, y), and for each point the band (low, high) or none."""

    style: str
    name: str
    points: Sequence[Point]
    band: Sequence[Point] = ()


@dataclass(frozen=True)
class Axes:
    """Linear axes from data to the picture; ``ticks`` are where lines and labels go."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        """The horizontal position of a value, in pixels from the left."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """The vertical position of a value, in pixels from the top."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    label: str, x_label: str, series: Sequence[Series], y_range: Point | None = None, percent: bool = False
) -> Markup:
    """An SVG of ``series``. ``label`` is its text for screen readers; without ``y_range`` the data decides."""
    finite = [_finite(one) for one in series]
    finite = [one for one in finite if one.points]
    if not finite:
        return Markup()
    axes = _axes(finite, y_range)
    parts = [
        _grid(axes, x_label, percent),
        *(_band(axes, one) for one in finite),
        *(_line(axes, one) for one in finite),
    ]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup().join(parts)
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about ``most`` of them."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * most >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A number as an axis shows it: 1500 as 1.5k."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _finite(series: Series) -> Series:
    keep = [index for index, point in enumerate(series.points) if all(map(math.isfinite, point))]
    band = series.band if len(series.band) == len(series.points) else ()
    return Series(
        series.style, series.name, [series.points[index] for index in keep], [band[index] for index in keep if band]
    )


def _axes(series: Sequence[Series], y_range: Point | None) -> Axes:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [y for one in series for pair in one.band for y in pair]
    low, high = y_range or (min(0.0, *ys), max(ys))
    return Axes(ticks(min(0.0, *xs), max(xs)), ticks(low, high, 4))


def _grid(axes: Axes, x_label: str, percent: bool) -> Markup:
    name: Callable[[float], str] = (lambda value: f"{100 * value:g} %") if percent else short
    rows = Markup().join(
        Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text class="y" x="{3}" y="{4}">{5}</text>'
        ).format(LEFT, WIDTH - RIGHT, axes.y(tick), LEFT - 8, axes.y(tick) + 4, name(tick))
        for tick in axes.y_ticks
    )
    columns = Markup().join(
        Markup('<text class="x" x="{}" y="{}">{}</text>').format(axes.x(tick), HEIGHT - BOTTOM + 18, short(tick))
        for tick in axes.x_ticks
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return rows + columns + Markup('<text class="x name" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 6, x_label)


def _band(axes: Axes, series: Series) -> Markup:
    if not series.band:
        return Markup()
    xs = [axes.x(x) for x, _ in series.points]
    low = [f"{x},{axes.y(pair[0])}" for x, pair in zip(xs, series.band, strict=True)]
    high = [f"{x},{axes.y(pair[1])}" for x, pair in zip(xs, series.band, strict=True)]
    return Markup('<polygon class="band {}" points="{}"/>').format(series.style, " ".join(low + high[::-1]))


def _line(axes: Axes, series: Series) -> Markup:
    """The line, and a dot at each point that names its figures when it is pointed at."""
    points = " ".join(f"{axes.x(x)},{axes.y(y)}" for x, y in series.points)
    dots = Markup().join(
        Markup('<circle class="{}" cx="{}" cy="{}" r="2.2"><title>{}: {} at {}</title></circle>').format(
            series.style, axes.x(x), axes.y(y), series.name, f"{y:.3g}", f"{x:,.0f}"
        )
        for x, y in series.points
    )
    return Markup('<polyline class="line {}" points="{}"/>').format(series.style, points) + dots
