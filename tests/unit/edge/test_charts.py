"""What is drawn is in proportion to what was counted, and a window without an answer is a gap, not a zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from proveout.edge.console import charts
from proveout.edge.console.operations import PERIODS, View
from proveout.ledger.report import Window

AT = datetime(2026, 11, 22, 16, 45, tzinfo=UTC)


def test_bars_stand_upon_each_other_in_proportion() -> None:
    drawn = charts.bars([Window(AT), Window(AT, requests=10, answered=6, refused=2, failed=1)])
    assert (drawn.top, drawn.width) == (10, 20)
    empty, full = drawn.bars
    assert list(empty.parts) == []
    assert [(p.kind, p.y, p.height) for p in full.parts] == [
        ("answered", 40, 60), ("refused", 20, 20), ("failed", 10, 10), ("others", 0, 10),
    ]  # fmt: skip


def test_lines_have_gaps() -> None:
    windows = [Window(AT, p50_ms=50, p95_ms=100), Window(AT, p50_ms=25, p95_ms=50), Window(AT), Window(AT, p50_ms=0)]
    drawn = charts.lines(windows)
    assert drawn.top == 100
    assert drawn.p50 == "M0 50H10V75H20M30 100H40"
    assert drawn.p95 == "M0 0H10V50H20"


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (3, 4), (7, 8), (9, 10), (10, 10), (101, 200), (8700, 10000)]
)
def test_scales_end_at_round_numbers(most: float, top: float) -> None:
    assert charts.nice(most) == top


@pytest.mark.parametrize("name", PERIODS)
def test_windows_begin_on_the_clock_and_the_last_holds_the_present(name: str) -> None:
    period = PERIODS[name]
    last = period.since(AT) + (period.windows - 1) * period.step
    assert last <= AT < last + period.step
    assert (last - datetime(2026, 11, 22, tzinfo=UTC)) % period.step == timedelta(0)


def test_an_address_tells_only_what_is_not_as_usual() -> None:
    assert View().but() == "/operations"
    assert View(app="app", by="key").but(by="app") == "/operations?app=app"
    assert View(period="7d").but(before="2026-11-22T16:45:00+00:00") == (
        "/operations?period=7d&before=2026-11-22T16%3A45%3A00%2B00%3A00"
    )
