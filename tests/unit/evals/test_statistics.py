"""Intervals, tests and adjustments: against published and independent values, and by simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from bench.statistics import bias_alarms, coverage

from proveout.evals.distributions import (
    beta_cdf,
    beta_quantile,
    binomial_tail,
    negative_binomial_tail,
    t_quantile,
)
from proveout.evals.statistics import (
    Noise,
    amounts_interval,
    case_means,
    cases_needed,
    cohens_kappa,
    detectable,
    difference_interval,
    exact_interval,
    holm,
    least_p,
    mcnemar_p,
    prediction_powered_mean,
    quantile_interval,
    rare_p,
    scores_interval,
    within_variance,
    worse_p,
)


def answers(good: int, n: int) -> list[list[float]]:
    return [[1.0]] * good + [[0.0]] * (n - good)


# Values of scipy 1.17: special.betainc, stats.t.ppf, stats.nbinom.sf, stats.binom.sf, stats.beta.ppf.
def test_distributions_agree_with_scipy() -> None:
    assert beta_cdf(0.3, 2.5, 4) == pytest.approx(0.3521975859067672, abs=1e-12)
    assert beta_cdf(0.999, 0.5, 0.5) == pytest.approx(0.9798649583666235, abs=1e-12)
    assert beta_quantile(0.975, 5.5, 45.5) == pytest.approx(0.2053548280230476, abs=1e-11)
    assert t_quantile(0.975, 49) == pytest.approx(2.0095752371292392, abs=1e-8)
    assert t_quantile(0.025, 1) == pytest.approx(-12.706204736174705, abs=1e-6)
    assert binomial_tail(2, 500, 1e-4) == pytest.approx(0.0012068448039531574, rel=1e-9)
    assert negative_binomial_tail(2, 0.02, 0.5) == pytest.approx(0.0039049684617072345, rel=1e-9)


def test_intervals_by_published_examples() -> None:
    jeffreys = scores_interval(answers(5, 50))
    assert (jeffreys.low, jeffreys.high) == pytest.approx((0.0391944, 0.2053548), abs=1e-6)
    exact = exact_interval(answers(0, 299), 0.9)
    assert exact.low == 0 and exact.high == pytest.approx(1 - 0.05 ** (1 / 299), rel=1e-9)
    # Newcombe (1998), Statistics in Medicine 17:857: Wilson of 81 in 263 is 0.2553 to 0.3662, here of alike repeats.
    wilson = scores_interval([[v, v] for v in np.repeat([1.0, 0.0], [81, 182]).tolist()])
    assert (wilson.low, wilson.high) == pytest.approx((0.2553, 0.3662), abs=1e-3)
    # Cohen's κ of 20 + 15 agreements in 50 (5 and 10 off the diagonal) is 0.4, standard error 0.127.
    kappa = cohens_kappa([1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    assert kappa.estimate == pytest.approx(0.4) and kappa.low == pytest.approx(0.4 - 0.26, abs=0.03)
    assert cohens_kappa(["a"] * 100, ["a"] * 100).low == -1  # one label says nothing


def test_repeats_of_a_case_are_no_new_cases() -> None:
    once, often = scores_interval(answers(80, 100)), scores_interval([case * 10 for case in answers(80, 100)])
    assert often.n == 100
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)
    surely, again = exact_interval(answers(80, 100)), exact_interval([case * 10 for case in answers(80, 100)])
    assert again.low == pytest.approx(surely.low, abs=0.002) and surely.low < once.low
    values = [[float(v)] * 5 for v in range(1, 201)]
    assert quantile_interval(values, 0.5).low == pytest.approx(
        quantile_interval([v[:1] for v in values], 0.5).low, abs=1.5
    )


def test_what_is_not_finite_is_left_out() -> None:
    assert case_means([[1.0, math.nan], [math.inf], []]).tolist() == [1.0]
    for empty in (scores_interval, amounts_interval, exact_interval):
        with pytest.raises(ValueError, match="at least one"):
            empty([[math.nan]])


def test_too_few_values_bound_no_p95() -> None:
    assert math.isinf(quantile_interval([[float(v)] for v in range(50)], 0.95).high)
    assert math.isfinite(quantile_interval([[float(v)] for v in range(100)], 0.95).high)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind",
    [
        "yes or no",
        "yes or no, 3 alike repeats",
        "score in [0, 1]",
        "paired difference",
        "mean of amounts",
        "labels and a judge",
        "Cohen's κ",
    ],
)
def test_coverage(kind: str, p: float) -> None:
    assert abs(coverage(kind, p, 60, 300) - 0.95) < 0.05  # 300 runs: within 93–97 %, give or take 2.4 errors


def test_coverage_of_quantiles() -> None:
    assert 0.92 < coverage("quantile", 0.5, 60, 300) < 0.98
    assert 0.92 < coverage("quantile", 0.95, 120, 300) < 0.985


def test_differences_never_seen_may_still_hide() -> None:
    interval = difference_interval(np.zeros(120))
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / 120))
    assert difference_interval(np.zeros(120), bounded=False).high == 0


def test_mcnemar() -> None:
    # Exact one-sided p of 12 against 2 is Σ C(14, k≥12) / 2^14 = 106 / 16384; mid-p takes half of C(14, 12) = 91 off.
    assert mcnemar_p(12, 2) == pytest.approx((106 - 45.5) / 16384)
    assert mcnemar_p(0, 0) == 1


def test_flipped_signs() -> None:
    same_size = np.array([1.0] * 12 + [-1.0] * 2 + [0.0] * 86)
    assert worse_p(same_size) == [pytest.approx(mcnemar_p(12, 2))]
    # 1, 2, 3 all worse: only 1 of 8 signs is as bad, half of it counts
    assert worse_p(np.array([1.0, 2.0, 3.0]))[0] == pytest.approx(1 / 16, abs=0.01)
    both = worse_p(np.array([[0.4, -0.4], [0.5, -0.5], [0.7, -0.7], [0.1, -0.1], [0.9, -0.9]]))
    assert both[0] == pytest.approx(1 / 64, abs=0.01) and both[0] + both[1] == pytest.approx(1, abs=1e-3)
    assert least_p(np.array([0.2, 0, 0.1])) == pytest.approx(1 / 8)


def test_many_flipped_signs_are_normal() -> None:
    harms = np.random.default_rng(1).normal(0.02, 1, 2_400)
    for part, error in ((harms, 1e-9), (harms[:1_900], 0.02)):  # 1,900 signs are flipped at random
        normal = NormalDist().cdf(-part.sum() / np.sqrt(np.sum(part**2)))
        assert worse_p(part)[0] == pytest.approx(normal, abs=error)


def test_flips_hold_their_level() -> None:
    draw = np.random.default_rng(0)
    harms = draw.choice([-1, -0.5, 0, 0.5, 1], size=(80, 400), p=[0.05, 0.1, 0.7, 0.1, 0.05])
    assert np.mean(np.array(worse_p(harms)) <= 0.05) == pytest.approx(0.05, abs=0.025)


def test_adjustments() -> None:
    # R: p.adjust(c(.01, .02, .03, .04), "holm")
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.01], [3, 1])[0] == pytest.approx(0.04 / 3)


def test_rare_events() -> None:
    assert rare_p(2, 500, 0, 500, 1e-4) < 0.01  # two toxic replies where there were none
    assert rare_p(1, 500, 0, 500, 1e-4) > 0.025
    assert rare_p(6, 500, 5, 500, 1e-4) > 0.2  # no more than before
    assert rare_p(0, 500, 0, 500, 1e-4) == 1


def test_labels_correct_a_biased_judge() -> None:
    draw = np.random.default_rng(3)
    truth = (draw.random(5100) < 0.7).astype(float)
    judged = np.where(draw.random(5100) < 0.2, 1.0, truth)  # too kind by 6 points
    found = prediction_powered_mean(truth[:100].tolist(), judged[:100].tolist(), judged[100:].tolist())
    alone = amounts_interval([[v] for v in truth[:100].tolist()])
    assert found.low < 0.7 < found.high and found.high - found.low < 0.8 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="two labels"):
        prediction_powered_mean([1.0], [1.0], [1.0])


def test_planning_figures() -> None:
    # n = (1.96 + 0.8416)² · 0.25 / 0.1² = 196.2, and 0.96 for Student's t
    assert cases_needed(0.1, Noise(0, 0.25)) == 199
    assert detectable(0.5, 199) == pytest.approx(0.1, rel=0.01)
    assert within_variance([[0.0, 1.0], [1.0, 1.0], [0.0]]) == pytest.approx(0.25)
    assert within_variance([[1.0], [0.0]]) is None


def test_a_gap_between_groups_is_found_and_sized() -> None:
    alarms, sized = bias_alarms(0.1, 20, 150)
    assert alarms >= 12 and sized >= 0.8
    assert bias_alarms(0, 30, 100)[0] <= 4
