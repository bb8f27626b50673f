"""How numbers, times and digests are written for people. None is a dash everywhere: it did not happen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime

NOTHING = "–"


def count(number: int | None) -> str:
    """`1,234`; from a million on rounded: `4.57M`."""
    if number is None:
        return NOTHING
    for unit, size_of_it in (("G", 10**9), ("M", 10**6)):
        if number >= size_of_it:
            return (
                f"{number / size_of_it:,.3g}{unit}"
                if number < 1000 * size_of_it
                else f"{number / size_of_it:,.0f}{unit}"
            )
    return f"{number:,}"


def duration(milliseconds: float | None) -> str:
    """`0.4 ms`, `512 ms`, `3.42 s`, `2 min 5 s`."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 999.5:
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if milliseconds < 59_995:
        return f"{milliseconds / 1000:.3g} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def milliseconds(number: float | None) -> str:
    """Without the unit, for a column that names it: `0.4`, `1,234`."""
    if number is None:
        return NOTHING
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"


def usd(amount: float | None) -> str:
    """`$1,234.50`; below a cent two figures that count: `$0.0042`."""
    if amount is None:
        return NOTHING
    if 0 < amount < 0.01:
        return f"${amount:.{1 - math.floor(math.log10(amount))}f}"
    return f"${amount:,.2f}" if amount else "$0"


def share(part: int, whole: int) -> str:
    """`12 %`; what is little is not rounded to nothing."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if part and percent < 1:
        return "< 1 %"
    return "> 99 %" if part < whole and percent > 99 else f"{percent:.0f} %"


def size(octets: int) -> str:
    """`45 MB`."""
    return f"{octets / 1e9:.1f} GB" if octets >= 1e9 else f"{octets / 1e6:.0f} MB"


def instant(at: datetime) -> str:
    """`2026-11-22 16:45:03`, in the zone that `at` is in."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def clock(at: datetime, now: datetime) -> str:
    """`16:45:03` for today, else with the date."""
    return f"{at:%H:%M:%S}" if at.date() == now.date() else instant(at)


def hour(at: datetime) -> str:
    """`22 Nov, 16:00`."""
    return f"{at.day} {at:%b, %H:%M}"


def ago(at: datetime, now: datetime) -> str:
    """`just now`, `4 min ago`, `3 h ago`, `2 d ago`."""
    seconds = (now - at).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    return f"{seconds // 3600:.0f} h ago" if seconds < 2 * 86400 else f"{seconds // 86400:.0f} d ago"


def short(digest: str) -> str:
    """The first 12 figures of a digest, without the name of its algorithm."""
    return digest.partition(":")[2][:12] or digest[:12]


FILTERS: Mapping[str, Callable[..., str]] = {
    f.__name__: f for f in (count, duration, milliseconds, usd, share, size, instant, clock, hour, ago, short)
}
