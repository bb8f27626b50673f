"""The geometry of the report's plots, drawn as SVG without a script or a library: estimates between their bounds.

A plot is 100 units wide and a row 10 high; labels are HTML beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from proveout.evals.statistics import Interval

WIDTH = 100.0
ROW = 10.0


@dataclass(frozen=True, slots=True)
class Whisker:
    """One row: an estimate at `x`, from `left` to `right`; `kind` colours it."""

    label: str
    value: str
    kind: str
    left: float
    x: float
    right: float


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows under each other over one axis; `zero` is where 0 is, if it is not at an edge."""

    rows: Sequence[Whisker]
    low: float
    high: float
    zero: float | None

    @property
    def height(self) -> float:
        return ROW * len(self.rows)


Row = tuple[str, str, str, Interval]
"""Label, value, kind, interval."""


def forest(rows: Sequence[Row], low: float | None = None, high: float | None = None) -> Forest:
    """A plot of the rows, the axis from `low` to `high`, or as wide as the finite bounds are on either side of zero.
    Infinite bounds end at the edge."""
    ends = [abs(v) for *_, i in rows for v in (i.low, i.high, i.estimate) if math.isfinite(v)]
    most = max(ends, default=0.0) * 1.05 or 1.0
    low, high = -most if low is None else low, most if high is None else high

    def at(value: float) -> float:
        return round(WIDTH * (min(max(value, low), high) - low) / (high - low), 2)

    whiskers = [Whisker(label, told, kind, at(i.low), at(i.estimate), at(i.high)) for label, told, kind, i in rows]
    return Forest(whiskers, low, high, at(0.0) if low < 0 < high else None)
