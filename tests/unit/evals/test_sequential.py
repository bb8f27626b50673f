"""Evidence that may be looked at at any time: its level, how soon it tells, and what it makes of broken input."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import pytest
from bench.statistics import detection, false_rollbacks, frozen_splits, promotion

from proveout.evals.sequential import BadEvents, Betting, SampleRatio, Seen, crosses, weighted_log_e

NAN = math.nan


def test_bad_events_by_hand() -> None:
    # one event of the candidate at w = 0.5: LR = 2ρ / (ρ + 1), averaged over ρ
    one = BadEvents().update([Seen(True, 1, 0.5), Seen(False, 0, 0.5), Seen(True, NAN, 0.5)])
    assert one.e_value == pytest.approx(sum(2 * r / (r + 1) for r in (1.25, 1.5, 2, 3, 5, 10)) / 6)
    assert (one.candidate, one.stable) == (1, 0)
    # in expectation over the null, one event leaves the wealth at 1, whatever the weight
    for weight in (0.01, 0.1, 0.5, 0.9):
        up, down = (BadEvents().update([Seen(arm, 1, weight)]).e_value for arm in (True, False))
        assert weight * up + (1 - weight) * down == pytest.approx(1)


def test_the_weight_may_change_with_every_event() -> None:
    both = BadEvents().update([Seen(True, 1, 0.05), Seen(True, 1, 0.5)])
    assert both == BadEvents().update([Seen(True, 1, 0.05)]).update([Seen(True, 1, 0.5)])
    assert BadEvents().update([Seen(True, 1, 1.0)]).e_value == pytest.approx(1)  # alone, it says nothing


@pytest.mark.parametrize("against", ["harm", "no_harm"])
def test_a_fair_bet_does_not_grow(against: Literal["harm", "no_harm"]) -> None:
    """One step from any past, D = ±1 with mean δ: the expected wealth stays."""
    bet = Betting(against, 0.1)
    for past in ([], [(1.0, 0.0)] * 5, [(0.5, 0.5)] * 30):
        start = bet
        for stable, candidate in past:
            start = start.update([Seen(False, stable, 0.5), Seen(True, candidate, 0.5)])
        worse = start.update([Seen(False, 1, 0.5), Seen(True, 0, 0.5)]).e_value
        better = start.update([Seen(False, 0, 0.5), Seen(True, 1, 0.5)]).e_value
        assert 0.55 * worse + 0.45 * better == pytest.approx(start.e_value)


def test_no_events_in_either_arm_are_evidence_of_no_harm() -> None:
    bet = Betting("no_harm", 0.02)
    for _ in range(500):
        bet = bet.update([Seen(False, 1, 0.5), Seen(True, 1, 0.5)])
    assert crosses(bet.log_e, 0.01)
    assert Betting("harm", 0.02).update([Seen(False, 1, 0.5), Seen(True, 1, 0.5)] * 500).e_value <= 1


def test_no_data_and_nan_are_evidence_of_nothing() -> None:
    bad = [Seen(arm, value, 0.5) for arm in (True, False) for value in (NAN, math.inf, -math.inf, 2.0)] * 50
    for bet in (Betting("harm", 0.05).update(bad), Betting("no_harm", 0.05).update(bad)):
        assert bet.e_value == 1 and bet.missing == len(bad) and not crosses(bet.log_e, 0.05)
    alone = Betting("no_harm", 0.05).update([Seen(True, 1, 0.5)] * 5000)  # the stable arm stopped
    assert alone.e_value == 1 and len(alone.candidate) <= 512
    assert not crosses(NAN, 0.01)


@pytest.mark.parametrize(
    "state",
    [
        BadEvents().update([Seen(True, 1, 0.01)] * 5000),
        BadEvents().update([Seen(False, 1, 0.99)] * 5000),
        Betting("harm", 0.02).update([Seen(False, 1, 0.5), Seen(True, 0, 0.5)] * 5000),
        Betting("no_harm", 0.02).update([Seen(False, 1, 0.5), Seen(True, 0, 0.5), Seen(True, 0.5, 0.5)]),
        SampleRatio().update([(True, 0.1)] * 100_000),
        SampleRatio().update([(True, 0.0), (False, 0.5)]),
    ],
)
def test_states_survive_json_and_extremes(state: BadEvents | Betting | SampleRatio) -> None:
    assert math.isfinite(state.log_e) and math.isfinite(state.e_value)
    assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state


def test_the_ratio_of_a_split() -> None:
    assert crosses(SampleRatio().update([(True, 0.0)]).log_e, 1e-4)  # somebody where nobody should be
    assert SampleRatio().update([(False, 0.0)] * 1000).e_value == 1
    # in expectation, one user leaves the wealth at 1, also after a change of weight
    start = SampleRatio().update([(i % 3 == 0, 0.3) for i in range(50)]).update([(False, 0.05)])
    after = [start.update([(arm, 0.2)]).e_value for arm in (False, True)]
    assert 0.8 * after[0] + 0.2 * after[1] == pytest.approx(start.e_value)
    assert frozen_splits(20, 1_000, 0.1, 0.1) == 0 and frozen_splits(5, 2_000, 0.1, 0.2) == 5


def test_guardrails_are_averaged_with_their_weights() -> None:
    weights = {"errors": 0.3, "rest": 0.7}
    assert weighted_log_e({}, weights) == pytest.approx(0)
    assert math.exp(weighted_log_e({"errors": math.log(1000), "rest": NAN}, weights)) == pytest.approx(300.7)
    assert weighted_log_e({"errors": math.inf}, weights) < 700
    with pytest.raises(ValueError, match="sum to 1"):
        weighted_log_e({}, {"errors": 0.3})
    with pytest.raises(ValueError, match="no weight for latency"):
        weighted_log_e({"latency": 0.0}, weights)
    with pytest.raises(ValueError, match="delta"):
        Betting("harm", -0.1)


def test_no_difference_is_rarely_rolled_back() -> None:
    assert false_rollbacks(15, 2_000) <= 1


def test_broken_releases_are_caught_soon() -> None:
    for change, median in (({"errors": 0.5}, 12), ({"errors": 0.1}, 75), ({"ttft": 1.5}, 120), ({"score": 0.1}, 260)):
        share, found, _ = detection(11, change, 10_000)
        assert share == 1 and found <= median * 1.3


def test_a_good_release_is_shown_to_be_one_and_a_bad_one_is_not() -> None:
    share, median = promotion(5, 0.5, {}, 10_000)
    assert share == 1 and median < 3_000
    assert promotion(5, 0.5, {"errors": 0.06}, 3_000)[0] == 0
