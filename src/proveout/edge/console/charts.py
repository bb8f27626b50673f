"""The geometry of the charts, drawn on the server as SVG: no script, no inline style, no library.

A chart is 100 units high and 10 wide per window, and stretched to its place; its labels are HTML beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proveout.ledger.report import Window

HEIGHT = 100.0
STEP = 10.0  # of one window
_GAP = 1.5  # on either side of a bar


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of outcome in a bar."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One window: its parts from the ground up."""

    window: Window
    x: float
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Bars:
    """Requests by outcome; `top` is the number at the upper edge."""

    top: float
    bars: Sequence[Bar]
    width: float
    bar_width: float = STEP - 2 * _GAP


@dataclass(frozen=True, slots=True)
class Lines:
    """Steps of the median and the 95th percentile as SVG paths; `top` is the milliseconds at the upper edge."""

    top: float
    p50: str
    p95: str
    width: float


def bars(windows: Sequence[Window]) -> Bars:
    """Bars of requests: answered, refused, failed, and the others, one upon the other."""
    top = nice(max((w.requests for w in windows), default=0))
    return Bars(
        top, [Bar(w, n * STEP + _GAP, _parts(w, top)) for n, w in enumerate(windows)], width=STEP * len(windows)
    )


def _parts(window: Window, top: float) -> list[Part]:
    parts, y = [], HEIGHT
    for kind in ("answered", "refused", "failed", "others"):
        height = getattr(window, kind) / top * HEIGHT
        if height:
            y -= height
            parts.append(Part(kind, round(y, 2), round(height, 2)))
    return parts


def lines(windows: Sequence[Window]) -> Lines:
    """Lines of the latency; windows without an answer are gaps."""
    top = nice(max((w.p95_ms for w in windows if w.p95_ms is not None), default=0))
    return Lines(
        top, _steps(windows, top, lambda w: w.p50_ms), _steps(windows, top, lambda w: w.p95_ms), STEP * len(windows)
    )


def _steps(windows: Sequence[Window], top: float, height: Callable[[Window], float | None]) -> str:
    path, joined = [], False
    for n, window in enumerate(windows):
        value = height(window)
        if value is not None:
            y = round(HEIGHT * (1 - value / top), 2)
            path.append(f"{'V' if joined else f'M{n * STEP:g} '}{y:g}H{(n + 1) * STEP:g}")
        joined = value is not None
    return "".join(path)


def nice(most: float) -> float:
    """The least of 1, 2, 4, 5, 6, 8 or 10 times a power of ten that is at least `most`, so that its half is round."""
    if most <= 2:
        return 2.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in (1, 2, 4, 5, 6, 8, 10) if factor * power >= most)
