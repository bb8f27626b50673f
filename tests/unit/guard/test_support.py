"""The support check lets through what a passage says and nothing that was changed."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.guard.opposites import opposites
from proveout.guard.support import SupportCheck, adds, covered, names, turned_round

TEXT = (
    "Employees in Leeds receive 25 days of annual leave. Contractors in Rotterdam receive 20 days. "
    "Unused days are not paid out. The People team approves requests before 31 March."
)
PASSAGES = [
    Passage("a", "d1", "Cars", (), "Pool cars are booked in the portal.", 0, 35),
    Passage("b", "d2", "Leave", (), TEXT, 0, len(TEXT)),
]


async def alike(texts: list[str]) -> NDArray[np.float32]:
    return np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1))


async def unlike(texts: list[str]) -> NDArray[np.float32]:
    return np.eye(len(texts), dtype=np.float32)


@pytest.mark.parametrize(
    ("sentence", "supported"),
    [
        ("Employees in Leeds receive 25 days of annual leave.", True),
        ("In Leeds, employees receive twenty-five days of annual leave [1].", True),
        ("- Contractors in Rotterdam receive 20 days.", True),
        ("Employees in Leeds receive 26 days of annual leave.", False),  # a number that stands nowhere
        ("Employees in Leeds receive 20 days of annual leave.", False),  # the number of another sentence
        ("Employees in Paris receive 25 days of annual leave.", False),  # a name that stands nowhere
        ("Unused days are paid out.", False),  # the negation is gone
        ("The People team approves requests after 31 March.", False),  # an opposite
        ("Employees enjoy generous sabbaticals and free lunch.", False),
        ("Sure!", False),
        ("", False),
    ],
)
def test_support(sentence: str, supported: bool) -> None:
    found = asyncio.run(SupportCheck(alike).check(sentence, PASSAGES))
    assert found.supported is supported
    assert found.text == sentence
    if supported:
        assert found.passage == 1
        assert found.score >= 0.7


def test_the_embedding_has_a_veto() -> None:
    found = asyncio.run(SupportCheck(unlike).check("Employees in Leeds receive 25 days of annual leave.", PASSAGES))
    assert not found.supported


@pytest.mark.parametrize(
    ("sentence", "supported"),
    [
        ("Leeds staff enjoy twenty-five days of annual leave.", True),  # other words, nothing in conflict
        ("Leeds staff enjoy 26 days of annual leave.", False),
        ("Paris staff enjoy 25 days of annual leave, we hear of Paris.", False),
        ("Staff in Leeds do not enjoy annual leave.", False),
        ("Unused days are paid out.", False),
        ("The People team disapproves requests before the end of March.", False),
        ("Free lunch and generous sabbaticals are common perks.", False),
    ],
)
def test_words_of_its_own_may_not_conflict(sentence: str, supported: bool) -> None:
    (found,) = asyncio.run(SupportCheck(alike).weigh(sentence, PASSAGES))
    assert found.supported is supported and (found.score >= 0.5) is supported


def test_weighing_leaves_out_what_says_nothing_and_asks_for_likeness() -> None:
    answer = "Sure! Leeds staff enjoy 25 days of annual leave."
    (found,) = asyncio.run(SupportCheck(unlike).weigh(answer, PASSAGES))
    assert not found.supported and found.passage == 1 and found.text.startswith("Leeds")
    assert asyncio.run(SupportCheck(alike).weigh("Sure!", PASSAGES)) == []


def test_opposites_are_of_stems_and_of_prefixes_of_long_ones() -> None:
    assert (
        "expens" in opposites("cheap") and "approv" in opposites("disapprov") and "disconnect" in opposites("connect")
    )
    assert "inform" not in opposites("form") and "form" not in opposites("inform")


def test_names_are_capitals_inside_a_sentence() -> None:
    assert names("Employees of Brightwater in Leeds call the VPN desk") == {"brightwater", "leeds", "vpn"}
    assert names("HR decides. People agree.") == {"hr"}


def test_turning_round() -> None:
    assert turned_round("You may not share it", "You may share it")
    assert turned_round("at most ten", "at least ten")
    assert not turned_round("before or after lunch", "after or before lunch")


def test_repeating_the_question_adds_nothing() -> None:
    assert not adds("The answer to the question is: how many days do I get?", "How many days do I get?")
    assert adds("You get 25 days.", "How many days do I get?")


def test_covered() -> None:
    assert covered("You get 25 days.", "In Leeds you get 25 days of leave.")
    assert not covered("You get 25 days.", "You get some days.")
