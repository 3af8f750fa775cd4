"""Whether something grows: a robust line through what was sampled, after a warm-up.

The line is Theil and Sen's: the median of the slopes of all pairs. A pause of the machine or a collection of
garbage moves a few samples far and the median not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

Point = tuple[float, float]
"""(seconds since the beginning, value)"""

WARMUP_S = 300.0
WARMUP_SHARE = 0.25
"""A run that is shorter than 20 minutes warms up for this share of it."""
RSS_MIB_PER_MIN_MAX = 1.0
FDS_GROWTH_MAX = 4.0
GROWTH_SHARE_MAX = 0.1
"""Beyond this share of its median a kind of keys grows over the judged time."""
KEYS_GROWTH_MIN = 20.0
"""So few more keys, or elements of the largest one, may be the dice of the load."""
BYTES_GROWTH_MIN = 512.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a series goes after the warm-up."""

    per_min: float
    level: float
    """The median."""
    span_min: float
    last: float

    @property
    def growth(self) -> float:
        """What the line gains over the judged time."""
        return self.per_min * self.span_min

    def grows(self, at_least: float) -> bool:
        """Whether it gains more than noise: beyond ``at_least`` and a share of what it has."""
        return self.growth > max(at_least, GROWTH_SHARE_MAX * self.level)


def slope(points: Sequence[Point]) -> float:
    """Value per second of the Theil-Sen line; 0 for fewer than two moments."""
    slopes = [
        (there[1] - here[1]) / (there[0] - here[0])
        for number, here in enumerate(points)
        for there in points[number + 1 :]
        if there[0] != here[0]
    ]
    return median(slopes) if slopes else 0.0


def warmup_s(points: Sequence[Point]) -> float:
    """How long nothing is judged."""
    whole = points[-1][0] - points[0][0] if points else 0.0
    return min(WARMUP_S, WARMUP_SHARE * whole)


def trend(points: Iterable[Point]) -> Trend:
    """How a series goes after its warm-up. A sample is missing where there was nothing: that is 0 keys."""
    series = sorted(points)
    begun = series[0][0] + warmup_s(series) if series else 0.0
    judged = [point for point in series if point[0] >= begun]
    if not judged:
        return Trend(per_min=0.0, level=0.0, span_min=0.0, last=0.0)
    return Trend(
        per_min=slope(judged) * 60,
        level=median(value for _, value in judged),
        span_min=(judged[-1][0] - judged[0][0]) / 60,
        last=judged[-1][1],
    )
