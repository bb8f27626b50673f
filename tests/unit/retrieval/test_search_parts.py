"""Chunks, postings, fusion: spans are exact, BM25 is BM25, scores mean the same for every query."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.retrieval.chunk import LIMIT, chunks, index_text, size
from proveout.retrieval.fusion import fuse
from proveout.retrieval.parse import parse, verbatim
from proveout.retrieval.postings import K1, B, Row, build, pack, score, terms, unpack

KEY = b"workspace key"
LONG = "# Rules\n\n## Leave\n\n" + "\n\n".join(
    f"Sentence number {i} says a little about leave. " * 4 for i in range(12)
)
LISTED = (
    LONG + "\n\n" + "Filler words stand here. " * 14 + "\n\nYou need:\n\n- a form\n- a pen\n\n## Pay\n\nPaid monthly."
)


def test_chunks_are_spans_of_one_section() -> None:
    parsed = parse("rules.md", LISTED.encode())
    found = chunks(parsed)
    assert [c.ordinal for c in found] == list(range(len(found)))
    assert all(parsed.text[c.start : c.end] == c.text and len(c.text) <= LIMIT for c in found)
    assert found[-1].text == "Paid monthly."
    assert {c.headings for c in found} == {("Leave",), ("Pay",)}
    assert all(len(c.text) > 300 for c in found[:-1])
    assert not any(c.text.endswith("You need:") for c in found)
    assert index_text("Rules", found[-1].headings, found[-1].text) == "Rules › Pay\nPaid monthly."


def test_one_endless_word_is_cut() -> None:
    assert all(len(c.text) <= LIMIT for c in chunks(parse("a.txt", b"x" * 5000 + b" end")))


@pytest.mark.parametrize(
    "text", ["東京の年次休暇は二十五日です。" * 90, "1,234.56 7,890.12 " * 120, "Отпуск длится 25 дней. " * 90]
)
def test_chunks_are_cut_by_tokens_where_characters_mislead(text: str) -> None:
    found = chunks(verbatim("t", text))
    assert len(found) > 1 and all(size(c.text) <= LIMIT for c in found)
    assert "".join(c.text for c in found).replace(" ", "") == text.replace(" ", "")


def held(rows: Mapping[int, bytes]) -> dict[int, list[Row]]:
    return {term: [unpack(row)] for term, row in rows.items()}


def all_of(count: int) -> NDArray[np.bool_]:
    return np.ones(count, np.bool_)


def test_bm25_against_the_formula() -> None:
    index = build(["red apple", "green apple apple", "blue sky over here"], KEY)
    query = terms("apples", KEY)
    found = score(query, held(index.rows), index.lengths, all_of(3)) * math.log(1 + 1.5 / 2.5) * (K1 + 1)
    mean = float(index.lengths.mean())
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * n / mean)) for tf, n in ((1, 2), (2, 3))]
    assert found == pytest.approx([*expected, 0.0], rel=1e-5)


def test_a_word_beside_a_text_counts_half() -> None:
    texts, beside = ["red apple", "blue sky", "green pear"], [["blue sky"], ["red apple", "green pear"], ["blue sky"]]
    index = build(texts, KEY, beside)
    assert index.lengths.tolist() == [3, 4, 3]
    found = score(terms("apple", KEY), held(index.rows), index.lengths, all_of(3))
    assert found[0] > found[1] > 0 == found[2]
    (term,) = terms("apple", KEY)
    assert unpack(index.rows[term])[1].tolist() == [2, 1]


def test_scores_are_shares() -> None:
    index = build(["annual leave in leeds", "travel to japan"], KEY)
    whole = score(terms("annual leave", KEY), held(index.rows), index.lengths, all_of(2))
    half = score(terms("annual dinosaur", KEY), held(index.rows), index.lengths, all_of(2))
    assert 0 < half[0] < whole[0] <= 1
    assert score(terms("", KEY), held(index.rows), index.lengths, all_of(2)).tolist() == [0, 0]
    assert len(score(terms("x", KEY), {}, np.zeros(0, np.float32), all_of(0))) == 0


def test_what_is_not_live_counts_for_nothing() -> None:
    """Scores over a part of an index are those of an index of that part."""
    texts = ["red apple", "green apple apple", "blue sky over here", "apple pie of the day"]
    whole, part = build(texts, KEY), build([texts[0], texts[2]], KEY)
    live = np.array([True, False, True, False])
    query = terms("apple sky", KEY)
    found = score(query, held(whole.rows), whole.lengths, live)
    assert found[live] == pytest.approx(score(query, held(part.rows), part.lengths, all_of(2)), rel=1e-6)
    assert found[~live].tolist() == [0, 0]


def test_terms_are_keyed_and_fit_a_bigint() -> None:
    assert terms("leave", KEY) == terms("Leaves", KEY) != terms("leave", b"other")
    assert all(-(2**63) <= t < 2**63 for t in terms("many different words here", KEY))


def test_a_row_comes_back() -> None:
    ordinals, frequencies = unpack(pack([0, 7, 70_000], [1, 65_535, 2]))
    assert ordinals.tolist() == [0, 7, 70_000]
    assert frequencies.tolist() == [1, 65_535, 2]


def test_fusion_is_absolute_and_ordered() -> None:
    fused = fuse({"a": 0.8, "b": 0.2}, {"b": 0.4, "c": 0.1}, weight=0.5)
    assert [name for name, _ in fused] == ["a", "b", "c"]
    assert [value for _, value in fused] == pytest.approx([0.4, 0.3, 0.05])
    assert fuse({"a": -0.5}, {}) == [("a", 0.0)]
