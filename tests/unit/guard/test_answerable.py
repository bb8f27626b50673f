"""Whether passages answer a question: near sentences that speak of every word do; one word amiss is enough to doubt."""

import numpy as np
import pytest

from proveout.domain import Passage
from proveout.guard.answerable import FEATURES, THRESHOLD, answerable, features


def passage(cosine: float, score: float) -> Passage:
    return Passage("a", "leave.md", "Leave", ("Leeds",), "You get 25 days in Leeds.", 0, 25, None, score, cosine)


NEAR = [passage(0.7, 0.6), passage(0.3, 0.3)]
FAR = [passage(0.2, 0.2), passage(0.1, 0.15)]


def signs(
    passages: list[Passage], rows: list[list[float]], question: str = "How many days of leave?"
) -> dict[str, float]:
    """The features, with the first row of matches as the likeliest."""
    chances = np.array([2.0**-n for n in range(len(rows))])
    found = features(question, passages, 0, np.array(rows, np.float32), chances / chances.sum())
    return dict(zip(FEATURES, found.tolist(), strict=True))


def chance(passages: list[Passage], *words: float, question: str = "How many days of leave?") -> float:
    row = [float(np.mean(words)), *words]
    return answerable(np.array(list(signs(passages, [row], question).values())))


def test_a_near_passage_is_answerable_and_a_distant_one_is_not() -> None:
    assert chance(FAR, 0.2, 0.3) < THRESHOLD < chance(NEAR, 0.8, 0.8) <= 1


def test_one_word_that_no_sentence_speaks_of_weighs_more_than_a_little_of_each() -> None:
    assert chance(NEAR, 0.9, 0.1) < chance(NEAR, 0.5, 0.5)


def test_a_name_that_stands_nowhere_lowers_the_chance() -> None:
    near = chance(NEAR, 0.7, 0.7, question="How many days in Leeds?")
    assert chance(NEAR, 0.7, 0.7, question="How many days in Tokyo?") < near


def test_features_are_the_best_of_the_sentences() -> None:
    found = signs(NEAR, [[0.6, 0.4], [0.2, 0.9]], "Days?")
    assert found["match"] == found["words"] == pytest.approx(0.9) and found["sentence"] == pytest.approx(0.6)
    assert found["passage"] == 0.7 and found["lead"] == pytest.approx(0.3) and found["unnamed"] == 0.0
    assert found["gap"] == pytest.approx(np.log(2))


def test_where_the_search_knows_no_cosines_those_of_the_sentences_stand_in() -> None:
    lexical = [passage(0.0, 0.6), passage(0.0, 0.3)]
    assert signs(lexical, [[0.65, 0.4]], "Days?")["passage"] == pytest.approx(0.65)
