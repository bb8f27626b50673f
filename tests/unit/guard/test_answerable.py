"""Whether passages answer a question: near quotes that speak of every word do; one word amiss is enough to doubt."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.guard.answerable import FEATURES, THRESHOLD, Match, answerable, features


@dataclass(frozen=True)
class Quote:
    passage: int
    text: str
    cosine: float


def passage(cosine: float, score: float) -> Passage:
    return Passage("a", "leave.md", "Leave", ("Leeds",), "You get 25 days in Leeds.", 0, 25, None, score, cosine)


NEAR = [passage(0.7, 0.6), passage(0.3, 0.3)]
FAR = [passage(0.2, 0.2), passage(0.1, 0.15)]
QUOTES = [Quote(0, "You get 25 days in Leeds.", 0.7)]


def matching(*words: float) -> Match:
    async def match(question: str, texts: list[str]) -> NDArray[np.float32]:
        assert texts == ["Leave › Leeds: You get 25 days in Leeds."]
        return np.array([words], np.float32)

    return match


def chance(passages: list[Passage], match: Match, question: str = "How many days of leave?") -> float:
    return asyncio.run(answerable(question, passages, QUOTES, match))


def test_without_quotes_nothing_is_answerable() -> None:
    assert asyncio.run(answerable("Why?", [], [], matching())) == 0.0


def test_a_near_passage_is_answerable_and_a_distant_one_is_not() -> None:
    assert chance(FAR, matching(0.2, 0.3)) < THRESHOLD < chance(NEAR, matching(0.7, 0.8)) <= 1


def test_one_word_that_the_quote_does_not_speak_of_weighs_more_than_a_little_of_each() -> None:
    assert chance(NEAR, matching(0.9, 0.1)) < chance(NEAR, matching(0.5, 0.5))


def test_a_name_that_stands_nowhere_lowers_the_chance() -> None:
    match = matching(0.7, 0.7)
    assert chance(NEAR, match, "How many days in Tokyo?") < chance(NEAR, match, "How many days in Leeds?")


def test_features_are_the_best_of_the_quotes() -> None:
    two = [*QUOTES, Quote(1, "Nothing.", 0.2)]
    found = dict(zip(FEATURES, features("Days?", NEAR, two, np.array([[0.4], [0.9]], np.float32)), strict=True))
    assert found["match"] == pytest.approx(0.9) and found["passage"] == 0.7
    assert found["lead"] == pytest.approx(0.3) and found["unnamed"] == 0.0


def test_where_the_search_knows_no_cosines_those_of_the_quotes_stand_in() -> None:
    lexical = [passage(0.0, 0.6), passage(0.0, 0.3)]
    assert features("Days?", lexical, QUOTES, np.array([[0.4]], np.float32))[1] == 0.7
