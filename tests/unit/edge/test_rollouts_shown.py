"""How the evidence of a rollout is drawn, on a page and in a terminal."""

from __future__ import annotations

from proveout.edge.cli.rollout import sparkline
from proveout.edge.console.rollouts import evidence


def test_the_threshold_and_the_evidence_share_one_log_axis() -> None:
    chart = evidence([-5.0, 0.0, 2.0, 9.0], 100)
    assert chart.path == f"M0 100L10 {71.43:g}L20 {chart.threshold:g}L30 0"
    assert (round(chart.top), chart.bottom, chart.width) == (316, 0.1, 30)
    assert evidence([], 100).path == "M0 71.43"


def test_a_sparkline_is_full_where_a_candidate_is_rolled_back() -> None:
    assert sparkline([-3.0, 0.0, 1.0, 2.0, 7.0]) == "▁▁▄██"
    assert sparkline([]) == "" and len(sparkline([0.0] * 500)) == 40
