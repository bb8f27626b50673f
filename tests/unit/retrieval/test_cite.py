"""The quote: verbatim, short, the right sentence, with the line that a list needs."""

import asyncio
import zlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import content_words
from proveout.retrieval.cite import MAX_WORDS, Quote, quotes


async def embed(texts: list[str]) -> NDArray[np.float32]:
    """Bags of hashed stems: near enough to an encoder for a test."""
    vectors: NDArray[np.float32] = np.full((len(texts), 512), 1e-3, np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in content_words(text):
            vector[zlib.crc32(word.encode()) % 512] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def passage(text: str, score: float = 0.5, title: str = "Handbook") -> Passage:
    return Passage("c", "d", title, (), text, 0, len(text), score=score)


async def quote(question: str, passages: list[Passage], embed: object) -> Quote | None:
    found = await quotes(question, passages, embed, limit=1)  # type: ignore[arg-type]
    return found[0] if found else None


LEAVE = passage(
    "The year starts in January. Employees in Leeds receive 25 days of annual leave. The canteen opens at noon. "
    "Ask your manager early."
)
LIST = passage(
    "To reset a password you need:\n- your badge\n- your phone\n- the number of your desk\n\nAnything else is easy.",
    0.4,
)


def test_the_sentence_that_answers_is_quoted() -> None:
    found = asyncio.run(quote("How many days of annual leave do I get in Leeds?", [LEAVE, LIST], embed))
    assert found is not None
    assert "25 days" in found.text
    assert LEAVE.text[found.start : found.end] == found.text
    assert found.passage == 0
    assert 0 < found.score <= 1


def test_a_list_comes_with_its_lead() -> None:
    found = asyncio.run(quote("What do I need to reset a password?", [LEAVE, LIST], embed))
    assert found is not None
    assert found.text.startswith("To reset a password you need:")
    assert "your phone" in found.text


def test_quotes_do_not_overlap_and_stay_short() -> None:
    wordy = passage(" ".join(f"Leave rule {i} holds for the leave of Leeds and of others too." for i in range(30)))
    found = asyncio.run(quotes("Which leave rule holds in Leeds?", [wordy, LEAVE], embed, limit=3))
    assert len(found) == 3
    assert all(len(q.text.split()) <= MAX_WORDS for q in found)
    spans = sorted((q.passage, q.start, q.end) for q in found)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))


def test_an_endless_sentence_is_cut_to_size() -> None:
    found = asyncio.run(quote("What is a word?", [passage("word " * 300)], embed))
    assert found is not None
    assert len(found.text.split()) == MAX_WORDS


def test_no_text_no_quote() -> None:
    assert asyncio.run(quote("Why?", [], embed)) is None
