"""The quotes: verbatim, short, the right sentences, with the line that a list needs, and no more than is needed."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.domain import Excerpts, Passage
from proveout.language import content_words
from proveout.retrieval.cite import MAX_WORDS, Quote, quotes, weigh


async def match(question: str, texts: list[Excerpts]) -> NDArray[np.float32]:
    """Common words: near enough to an encoder for a test."""
    asked = content_words(question) or ["?"]
    rows = []
    for text in texts:
        for start, end in text.spans:
            held = set(content_words(text.text[: text.head])) | set(content_words(text.text[start:end]))
            words = [0.9 if word in held else 0.2 for word in asked]
            rows.append([float(np.mean(words)), *words])
    return np.array(rows, np.float32)


def passage(text: str, score: float = 0.5, title: str = "Handbook") -> Passage:
    return Passage("c", "d", title, (), text, 0, len(text), score=score)


def cited(question: str, passages: list[Passage], room: int = 120) -> list[Quote]:
    return quotes(asyncio.run(weigh(question, passages, match)), passages, room)


LEAVE = passage(
    "The year starts in January. Employees in Leeds receive 25 days of annual leave. The canteen opens at noon. "
    "Ask your manager early."
)
LIST = passage(
    "To reset a password you need:\n- your badge\n- your phone\n- the number of your desk\n\nAnything else is easy.",
    0.4,
)


def test_the_sentence_that_answers_is_quoted_first() -> None:
    best = cited("How many days of annual leave do I get in Leeds?", [LIST, LEAVE])[0]
    assert "25 days" in best.text
    assert LEAVE.text[best.start : best.end] == best.text
    assert best.passage == 1


def test_a_list_comes_with_its_lead() -> None:
    found = cited("What do I need to reset a password?", [LEAVE, LIST])
    assert found[0].text.startswith("To reset a password you need:") and "your phone" in found[0].text


def test_quotes_do_not_overlap_and_stay_short() -> None:
    wordy = passage(" ".join(f"Leave rule {i} holds for the leave of Leeds and of others too." for i in range(30)))
    found = cited("Which leave rule holds in Leeds?", [wordy, LEAVE])
    assert len(found) >= 2
    assert all(len(q.text.split()) <= MAX_WORDS for q in found)
    assert sum(len(q.text.split()) + 1 for q in found) <= 120
    spans = sorted((q.passage, q.start, q.end) for q in found)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))


def test_facts_of_several_passages_are_quoted_together_and_the_rest_is_left_out() -> None:
    other = passage("Carry-over of annual leave in Leeds ends on 31 March. Bicycles are parked in the yard.")
    found = cited("How many days of annual leave in Leeds, and when does annual leave end?", [LEAVE, other])
    said = " ".join(q.text for q in found)
    assert "25 days" in said and "31 March" in said
    assert "Bicycles" not in said and "canteen" not in said
    assert sum(q.score for q in found) >= 0.9


def test_the_same_words_are_quoted_once() -> None:
    found = cited("How many days of annual leave do I get in Leeds?", [LEAVE, LEAVE])
    assert " ".join(q.text for q in found).count("25 days") == 1


def test_an_endless_sentence_is_cut_to_size() -> None:
    assert len(cited("What is a word?", [passage("word " * 300)])[0].text.split()) == MAX_WORDS


@pytest.mark.parametrize("passages", [[], [passage("  ")]])
def test_no_text_no_quote(passages: list[Passage]) -> None:
    assert cited("Why?", passages) == []


def test_no_room_no_quote() -> None:
    assert cited("How many days of annual leave?", [LEAVE], room=5) == []
