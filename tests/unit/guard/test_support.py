"""The support check lets through what a passage says and nothing that was changed."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.domain import Passage
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
