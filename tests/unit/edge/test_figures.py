"""Numbers as people read them: never rounded to something that they are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from proveout.edge.console import figures

NOW = datetime(2026, 11, 22, 16, 45, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "written"),
    [(None, "–"), (0, "0"), (1234, "1,234"), (999_999, "999,999"), (4_567_890, "4.57M"), (12_000_000_000, "12G")],
)
def test_counts(number: int | None, written: str) -> None:
    assert figures.count(number) == written


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [(None, "–"), (0.42, "0.4 ms"), (512.4, "512 ms"), (999.6, "1 s"), (3421, "3.42 s"), (125_000, "2 min 5 s")],
)
def test_durations(milliseconds: float | None, written: str) -> None:
    assert figures.duration(milliseconds) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [(None, "–"), (0, "$0"), (0.0042, "$0.0042"), (0.00001234, "$0.000012"), (0.31987, "$0.32"), (1234.5, "$1,234.50")],
)
def test_usd(amount: float | None, written: str) -> None:
    assert figures.usd(amount) == written


def test_a_share_is_neither_rounded_to_nothing_nor_to_everything() -> None:
    assert [figures.share(*pair) for pair in ((0, 0), (0, 9), (1, 500), (1, 8), (499, 500), (9, 9))] == [
        "–", "0 %", "< 1 %", "12 %", "> 99 %", "100 %",
    ]  # fmt: skip


def test_times() -> None:
    before = [timedelta(seconds=5), timedelta(minutes=4), timedelta(hours=3), timedelta(hours=47), timedelta(days=2)]
    assert [figures.ago(NOW - one, NOW) for one in before] == [
        "just now",
        "4 min ago",
        "3 h ago",
        "47 h ago",
        "2 d ago",
    ]
    assert figures.clock(NOW, NOW) == "16:45:03"
    assert figures.clock(NOW - timedelta(days=1), NOW) == "2026-11-21 16:45:03"
    assert figures.short("sha256:" + "0123456789abcdef" * 4) == "0123456789ab"
